# Every image at once: `docker buildx bake` (docs/deploy/images.md). Groups: cpu, gpu.
variable "ATRIUM_VERSION" { default = "dev" }
variable "ATRIUM_REVISION" { default = "unknown" }
variable "TORCH_INDEX" { default = "" }

group "default" { targets = ["cpu"] }
group "cpu" { targets = ["gateway", "models", "service-cpu"] }
group "gpu" { targets = ["gateway", "models", "service-gpu"] }

target "common" {
  context = "."
  args = {
    ATRIUM_VERSION  = ATRIUM_VERSION
    ATRIUM_REVISION = ATRIUM_REVISION
  }
}

target "gateway" {
  inherits   = ["common"]
  dockerfile = "services/gateway/Dockerfile"
  tags       = ["atrium/gateway:${ATRIUM_VERSION}"]
}

target "models" {
  inherits   = ["common"]
  dockerfile = "deploy/models/Dockerfile"
  tags       = ["atrium/models:${ATRIUM_VERSION}"]
}

target "service-cpu" {
  name       = "${service}-cpu"
  matrix     = { service = ["img2img", "img2text", "llm", "stt", "text2image", "tts"] }
  inherits   = ["common"]
  dockerfile = "services/${service}/Dockerfile"
  target     = "cpu"
  args       = { TORCH_INDEX = TORCH_INDEX }
  tags       = ["atrium/${service}:${ATRIUM_VERSION}-cpu"]
}

target "service-gpu" {
  name       = "${service}-gpu"
  matrix     = { service = ["img2img", "img2text", "llm", "stt", "text2image", "tts"] }
  inherits   = ["common"]
  dockerfile = "services/${service}/Dockerfile"
  target     = "gpu"
  tags       = ["atrium/${service}:${ATRIUM_VERSION}-gpu"]
}

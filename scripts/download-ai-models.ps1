# Fetches the models of a catalogue and checks them: `atrium models pull`, and its relatives.
# See docs/models.md.
#
#   scripts/download-ai-models.ps1                         the starter models
#   scripts/download-ai-models.ps1 --gpu                   those of models/gpu.yaml
#   scripts/download-ai-models.ps1 --gpu qwen3-8b xtts-v2  these
#   scripts/download-ai-models.ps1 --gpu list|verify|show|remove|prune|licence ...
#
#   ATRIUM_CATALOGUE   catalogue file; --gpu takes models/gpu.yaml
#   ATRIUM_MODELS_DIR  where models are kept (default: .atrium/models)
#   ATRIUM_OFFLINE     1 fetches nothing and says what is missing
#   HF_ENDPOINT, HF_TOKEN  a mirror of the model hub; a token for closed repositories

$ErrorActionPreference = 'Stop'

function Stop-WithError([string] $Message) {
    [Console]::Error.WriteLine("download-ai-models: $Message")
    exit 1
}

$Root = Split-Path -Parent $PSScriptRoot
$Words = @($args)

$Program = Join-Path $Root '.venv/Scripts/atrium-models.exe'
if (-not (Test-Path -LiteralPath $Program -PathType Leaf)) {
    $Found = Get-Command 'atrium-models' -CommandType Application -ErrorAction SilentlyContinue |
        Select-Object -First 1
    if ($null -eq $Found) {
        Stop-WithError "atrium-models was not found: pip install 'atrium-common[cli,hub]'"
    }
    $Program = $Found.Source
}

if ($Words.Count -gt 0 -and $Words[0] -ceq '--gpu') {
    $Words = @($Words | Select-Object -Skip 1)
    $env:ATRIUM_CATALOGUE = 'models/gpu.yaml'
}
if (-not $env:ATRIUM_CATALOGUE) { $env:ATRIUM_CATALOGUE = 'models/starter.yaml' }
if (-not $env:ATRIUM_MODELS_DIR) { $env:ATRIUM_MODELS_DIR = '.atrium/models' }

$Commands = 'list', 'pull', 'verify', 'remove', 'prune', 'show', 'licence', 'license'
if ($Words.Count -eq 0 -or $Commands -cnotcontains $Words[0]) {
    $Words = @('pull') + $Words
}

Push-Location -LiteralPath $Root
try {
    if (-not (Test-Path -LiteralPath $env:ATRIUM_CATALOGUE -PathType Leaf)) {
        Stop-WithError "there is no catalogue $env:ATRIUM_CATALOGUE (ATRIUM_CATALOGUE)"
    }
    & $Program @Words
    $Status = $LASTEXITCODE
}
finally {
    Pop-Location
}
exit $Status

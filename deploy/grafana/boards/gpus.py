"""The cards, what is on them and what waits for them."""

from .panels import Dashboard, Query, Row, panel
from .queries import rate

_GPU = "max by (gpu, name)"

GPU = Dashboard(
    uid="atrium-gpu",
    title="Atrium: GPUs",
    description="The cards, what is on them and what waits for them.",
    rows=(
        Row(
            "Cards",
            (
                panel(
                    "Busy",
                    "Share of time in which the GPU was busy.",
                    Query(f"{_GPU} (atrium_gpu_utilization_ratio)", "{{name}} {{gpu}}"),
                    unit="percentunit",
                    most=1,
                ),
                panel(
                    "Memory taken",
                    "Share of the GPU's memory, by whomever.",
                    Query(
                        f"{_GPU} (atrium_gpu_memory_used_bytes / atrium_gpu_memory_total_bytes)",
                        "{{name}} {{gpu}}",
                    ),
                    unit="percentunit",
                    most=1,
                ),
                panel(
                    "Memory",
                    "Taken, and how much there is.",
                    Query(f"{_GPU} (atrium_gpu_memory_used_bytes)", "{{gpu}} taken"),
                    Query(f"{_GPU} (atrium_gpu_memory_total_bytes)", "{{gpu}} in all"),
                    unit="bytes",
                ),
                panel(
                    "Temperature",
                    "Above 85 °C look for the reason; near 90 °C cards slow down.",
                    Query(f"{_GPU} (atrium_gpu_temperature_celsius)", "{{name}} {{gpu}}"),
                    unit="celsius",
                    limits=(80, 85),
                ),
                panel(
                    "Power",
                    "What the card draws.",
                    Query(f"{_GPU} (atrium_gpu_power_watts)", "{{name}} {{gpu}}"),
                    unit="watt",
                ),
                panel(
                    "Energy per thousand tokens",
                    "Of all cards together, by tokens that language models wrote.",
                    Query(
                        f"1000 * sum({_GPU} (atrium_gpu_power_watts)) / "
                        + rate("atrium_usage_units_total", where='{unit="output_tokens"}'),
                        "per thousand",
                    ),
                    unit="joule",
                ),
            ),
        ),
        Row(
            "Work",
            (
                panel(
                    "Memory by model",
                    "What models take, as the services count it.",
                    Query("sum by (service, model) (atrium_model_memory_bytes)", "{{model}}"),
                    unit="bytes",
                    stacked=True,
                ),
                panel(
                    "Waiting",
                    "Requests that wait for an engine: with idle cards, it is stuck.",
                    Query("sum by (service) (atrium_queue_depth)", "{{service}}"),
                ),
                panel(
                    "Slots in use",
                    "Share of the engines' slots that hold a request.",
                    Query(
                        "sum by (service) (atrium_queue_running)"
                        " / sum by (service) (atrium_queue_slots)",
                        "{{service}}",
                    ),
                    unit="percentunit",
                    most=1,
                ),
            ),
        ),
    ),
)

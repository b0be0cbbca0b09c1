"""The cards, what is on them and what waits for them."""

from .panels import Dashboard, Panel, Query, Row
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
                Panel(
                    title="Busy",
                    description="Share of time in which the GPU was busy.",
                    unit="percentunit",
                    most=1,
                    queries=(Query(f"{_GPU} (atrium_gpu_utilization_ratio)", "{{name}} {{gpu}}"),),
                ),
                Panel(
                    title="Memory taken",
                    description="Share of the GPU's memory, by whomever.",
                    unit="percentunit",
                    most=1,
                    queries=(
                        Query(
                            f"{_GPU} (atrium_gpu_memory_used_bytes"
                            " / atrium_gpu_memory_total_bytes)",
                            "{{name}} {{gpu}}",
                        ),
                    ),
                ),
                Panel(
                    title="Memory",
                    description="Taken, and how much there is.",
                    unit="bytes",
                    queries=(
                        Query(f"{_GPU} (atrium_gpu_memory_used_bytes)", "{{gpu}} taken"),
                        Query(f"{_GPU} (atrium_gpu_memory_total_bytes)", "{{gpu}} in all"),
                    ),
                ),
                Panel(
                    title="Temperature",
                    description="Above 85 °C look for the reason; near 90 °C cards slow down.",
                    unit="celsius",
                    queries=(
                        Query(f"{_GPU} (atrium_gpu_temperature_celsius)", "{{name}} {{gpu}}"),
                    ),
                    limits=(80, 85),
                ),
                Panel(
                    title="Power",
                    description="What the card draws.",
                    unit="watt",
                    queries=(Query(f"{_GPU} (atrium_gpu_power_watts)", "{{name}} {{gpu}}"),),
                ),
                Panel(
                    title="Energy per thousand tokens",
                    description="Of all cards together, by tokens that language models wrote.",
                    unit="joule",
                    queries=(
                        Query(
                            f"1000 * sum({_GPU} (atrium_gpu_power_watts)) / "
                            + rate("atrium_usage_units_total", where='{unit="output_tokens"}'),
                            "per thousand",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Work",
            (
                Panel(
                    title="Memory by model",
                    description="What models take, as the services count it.",
                    unit="bytes",
                    queries=(
                        Query("sum by (service, model) (atrium_model_memory_bytes)", "{{model}}"),
                    ),
                    stacked=True,
                ),
                Panel(
                    title="Waiting",
                    description="Requests that wait for an engine: with idle cards, it is stuck.",
                    queries=(Query("sum by (service) (atrium_queue_depth)", "{{service}}"),),
                ),
                Panel(
                    title="Slots in use",
                    description="Share of the engines' slots that hold a request.",
                    unit="percentunit",
                    most=1,
                    queries=(
                        Query(
                            "sum by (service) (atrium_queue_running)"
                            " / sum by (service) (atrium_queue_slots)",
                            "{{service}}",
                        ),
                    ),
                ),
            ),
        ),
    ),
)

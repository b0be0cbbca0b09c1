"""One process: its calls, its queue, its models."""

from .panels import Dashboard, Query, Row, Variable, panel
from .queries import RATE, quantiles, rate

WHO = '{service="$service"}'

SERVICE = Dashboard(
    uid="atrium-service",
    title="Atrium: service",
    description="One process: its calls, its queue, its models.",
    variables=(Variable("service", "service", "atrium_build_info"),),
    rows=(
        Row(
            "Calls",
            (
                panel(
                    "RPCs by method",
                    "RPCs that ended, a second; at the gateway those of admission.",
                    Query(rate("atrium_rpc_requests_total", "method", where=WHO), "{{method}}"),
                    unit="reqps",
                ),
                panel(
                    "Errors by reason",
                    "RPCs that ended with an error. CANCELLED: the caller left.",
                    Query(rate("atrium_rpc_errors_total", "reason", where=WHO), "{{reason}}"),
                    unit="reqps",
                ),
                panel(
                    "Running",
                    "RPCs that run now, those that wait for the engine included.",
                    Query(f"sum by (method) (atrium_rpc_running{WHO})", "{{method}}"),
                ),
                panel(
                    "Duration",
                    "Of RPCs, from the call to its status: half of them, and 19 of 20.",
                    *quantiles("atrium_rpc_seconds", "method", WHO),
                    unit="s",
                ),
                panel(
                    "First content",
                    "From a streamed RPC's start to its first token, audio or step.",
                    *quantiles("atrium_rpc_first_content_seconds", "method", WHO),
                    unit="s",
                ),
                panel(
                    "Server errors",
                    "Share of RPCs that failed by its own fault, over five minutes.",
                    Query(f"atrium:rpc_server_errors:ratio_rate5m{WHO}", "{{service}}"),
                    unit="percentunit",
                    limits=(0.01, 0.05),
                ),
            ),
        ),
        Row(
            "Engine",
            (
                panel(
                    "Waiting and running",
                    "Requests that wait for a slot or hold one, and all slots.",
                    Query(f"atrium_queue_depth{WHO}", "{{queue}} waiting"),
                    Query(f"atrium_queue_running{WHO}", "{{queue}} running"),
                    Query(f"atrium_queue_slots{WHO}", "{{queue}} slots"),
                ),
                panel(
                    "Wait for a slot",
                    "Of requests that got one: half of them, and 19 of 20.",
                    *quantiles("atrium_queue_wait_seconds", "queue", WHO),
                    unit="s",
                ),
                panel(
                    "Inference",
                    "Time of RPCs without their wait: half of them, and 19 of 20.",
                    *quantiles("atrium_inference_seconds", "model", WHO),
                    unit="s",
                ),
                panel(
                    "Rows per step",
                    "Requests that shared a step on average; engines that batch.",
                    Query(
                        f"{rate('atrium_batch_size_sum', 'model', where=WHO)}"
                        f" / {rate('atrium_batch_size_count', 'model', where=WHO)}",
                        "{{model}}",
                    ),
                ),
                panel(
                    "Units",
                    "What models produced and consumed, a second.",
                    Query(
                        rate("atrium_usage_units_total", "model", "unit", where=WHO),
                        "{{model}} {{unit}}",
                    ),
                    logarithmic=True,
                ),
                panel(
                    "Closed reservations",
                    "Of callers that came without the gateway, by their end.",
                    Query(rate("atrium_settlements_total", "result", where=WHO), "{{result}}"),
                    unit="reqps",
                ),
            ),
        ),
        Row(
            "Models",
            (
                panel(
                    "State",
                    "The state that each model is in.",
                    Query(f"atrium_model_state{WHO} == 1", "{{model}} {{state}}"),
                    unit="bool_yes_no",
                    kind="state-timeline",
                    colours=(
                        (" ready$", "green"),
                        (" loading$", "yellow"),
                        (" unloaded$", "blue"),
                        (" failed$", "red"),
                    ),
                ),
                panel(
                    "Memory of models",
                    "What each takes of its device; 0 if not loaded, or not known.",
                    Query(f"atrium_model_memory_bytes{WHO}", "{{model}}"),
                    unit="bytes",
                    stacked=True,
                ),
                panel(
                    "Unused for",
                    "Since a request last ran on the model; none yet is not shown.",
                    Query(
                        f"time() - (atrium_model_last_use_timestamp_seconds{WHO} > 0)",
                        "{{model}}",
                    ),
                    unit="s",
                ),
            ),
        ),
        Row(
            "Process",
            (
                panel(
                    "Processors",
                    "Processors that the process keeps busy.",
                    Query(
                        f"sum by (instance) (rate(process_cpu_seconds_total{WHO}{RATE}))",
                        "{{instance}}",
                    ),
                ),
                panel(
                    "Memory",
                    "Of the process; the container is killed at its limit.",
                    Query(f"process_resident_memory_bytes{WHO}", "{{instance}}"),
                    unit="bytes",
                ),
                panel(
                    "Runs for",
                    "Since the process started.",
                    Query(f"time() - process_start_time_seconds{WHO}", "{{instance}}"),
                    unit="s",
                ),
                panel(
                    "Open files",
                    "File descriptors, and how many may be open.",
                    Query(f"process_open_fds{WHO}", "{{instance}} open"),
                    Query(f"process_max_fds{WHO}", "{{instance}} at most"),
                ),
                panel(
                    "Warnings and errors",
                    "Lines of its log; open one to get to its trace.",
                    Query('{service="$service", level=~"warning|error|critical"}'),
                    kind="logs",
                    width=16,
                ),
            ),
        ),
    ),
)

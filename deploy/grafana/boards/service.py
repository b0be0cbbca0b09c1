"""One process: its calls, its queue, its models."""

from .panels import Dashboard, Panel, Query, Row, Variable
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
                Panel(
                    title="RPCs by method",
                    description="RPCs that ended, a second; at the gateway those of admission.",
                    unit="reqps",
                    queries=(
                        Query(rate("atrium_rpc_requests_total", "method", where=WHO), "{{method}}"),
                    ),
                ),
                Panel(
                    title="Errors by reason",
                    description="RPCs that ended with an error. CANCELLED: the caller left.",
                    unit="reqps",
                    queries=(
                        Query(rate("atrium_rpc_errors_total", "reason", where=WHO), "{{reason}}"),
                    ),
                ),
                Panel(
                    title="Running",
                    description="RPCs that run now, those that wait for the engine included.",
                    queries=(Query(f"sum by (method) (atrium_rpc_running{WHO})", "{{method}}"),),
                ),
                Panel(
                    title="Duration",
                    description="Of RPCs, from the call to its status: half of them, and 19 of 20.",
                    unit="s",
                    queries=quantiles("atrium_rpc_seconds", "method", WHO),
                ),
                Panel(
                    title="First content",
                    description="From a streamed RPC's start to its first token, audio or step.",
                    unit="s",
                    queries=quantiles("atrium_rpc_first_content_seconds", "method", WHO),
                ),
                Panel(
                    title="Server errors",
                    description="Share of RPCs that failed by its own fault, over five minutes.",
                    unit="percentunit",
                    queries=(Query(f"atrium:rpc_server_errors:ratio_rate5m{WHO}", "{{service}}"),),
                    limits=(0.01, 0.05),
                ),
            ),
        ),
        Row(
            "Engine",
            (
                Panel(
                    title="Waiting and running",
                    description="Requests that wait for a slot or hold one, and all slots.",
                    queries=(
                        Query(f"atrium_queue_depth{WHO}", "{{queue}} waiting"),
                        Query(f"atrium_queue_running{WHO}", "{{queue}} running"),
                        Query(f"atrium_queue_slots{WHO}", "{{queue}} slots"),
                    ),
                ),
                Panel(
                    title="Wait for a slot",
                    description="Of requests that got one: half of them, and 19 of 20.",
                    unit="s",
                    queries=quantiles("atrium_queue_wait_seconds", "queue", WHO),
                ),
                Panel(
                    title="Inference",
                    description="Time of RPCs without their wait: half of them, and 19 of 20.",
                    unit="s",
                    queries=quantiles("atrium_inference_seconds", "model", WHO),
                ),
                Panel(
                    title="Rows per step",
                    description="Requests that shared a step on average; engines that batch.",
                    queries=(
                        Query(
                            f"{rate('atrium_batch_size_sum', 'model', where=WHO)}"
                            f" / {rate('atrium_batch_size_count', 'model', where=WHO)}",
                            "{{model}}",
                        ),
                    ),
                ),
                Panel(
                    title="Units",
                    description="What models produced and consumed, a second.",
                    queries=(
                        Query(
                            rate("atrium_usage_units_total", "model", "unit", where=WHO),
                            "{{model}} {{unit}}",
                        ),
                    ),
                ),
                Panel(
                    title="Closed reservations",
                    description="Of callers that came without the gateway, by their end.",
                    unit="reqps",
                    queries=(
                        Query(rate("atrium_settlements_total", "result", where=WHO), "{{result}}"),
                    ),
                ),
            ),
        ),
        Row(
            "Models",
            (
                Panel(
                    title="State",
                    description="The state that each model is in.",
                    unit="bool_yes_no",
                    kind="state-timeline",
                    queries=(Query(f"atrium_model_state{WHO} == 1", "{{model}} {{state}}"),),
                ),
                Panel(
                    title="Memory of models",
                    description="What each takes of its device; 0 if not loaded, or not known.",
                    unit="bytes",
                    queries=(Query(f"atrium_model_memory_bytes{WHO}", "{{model}}"),),
                    stacked=True,
                ),
                Panel(
                    title="Unused for",
                    description="Since a request last ran on the model; none yet is not shown.",
                    unit="s",
                    queries=(
                        Query(
                            f"time() - (atrium_model_last_use_timestamp_seconds{WHO} > 0)",
                            "{{model}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Process",
            (
                Panel(
                    title="Processors",
                    description="Processors that the process keeps busy.",
                    queries=(
                        Query(
                            f"sum by (instance) (rate(process_cpu_seconds_total{WHO}{RATE}))",
                            "{{instance}}",
                        ),
                    ),
                ),
                Panel(
                    title="Memory",
                    description="Of the process; the container is killed at its limit.",
                    unit="bytes",
                    queries=(Query(f"process_resident_memory_bytes{WHO}", "{{instance}}"),),
                ),
                Panel(
                    title="Runs for",
                    description="Since the process started.",
                    unit="s",
                    queries=(Query(f"time() - process_start_time_seconds{WHO}", "{{instance}}"),),
                ),
                Panel(
                    title="Open files",
                    description="File descriptors, and how many may be open.",
                    queries=(
                        Query(f"process_open_fds{WHO}", "{{instance}} open"),
                        Query(f"process_max_fds{WHO}", "{{instance}} at most"),
                    ),
                ),
                Panel(
                    title="Warnings and errors",
                    description="Lines of its log; open one to get to its trace.",
                    kind="logs",
                    queries=(Query('{service="$service", level=~"warning|error|critical"}'),),
                    width=16,
                ),
            ),
        ),
    ),
)

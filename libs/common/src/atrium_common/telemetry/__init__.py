"""What a process tells of itself: numbers for Prometheus, spans for OpenTelemetry.

`tally` is plain Python, for engines and queues; `spans` needs OpenTelemetry's API alone;
`setup` starts its SDK where a process is told to.
"""

"""What operators and tenants' admins do: the parts behind `/api/tenants`, keys and limits."""

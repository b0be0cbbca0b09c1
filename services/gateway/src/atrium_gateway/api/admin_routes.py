"""The paths of administration; `routes.py` adds them to its own."""

from atrium_gateway.api.audit import AuditAnswer, AuditQuery, list_audit
from atrium_gateway.api.keys import (
    change_key,
    create_key,
    list_keys,
    revoke_key,
    rotate_key,
    show_key,
)
from atrium_gateway.api.keys_schema import (
    KeyChange,
    KeyList,
    KeyObject,
    KeyRequest,
    KeyRotation,
    KeysQuery,
    KeyWithSecret,
    OfTenant,
)
from atrium_gateway.api.limits import remove_limit, set_limit, show_limits
from atrium_gateway.api.limits_schema import LimitKind, LimitList, LimitRequest, LimitsQuery
from atrium_gateway.api.model_loading import ModelMoved, load_model, unload_model
from atrium_gateway.api.openapi import operation
from atrium_gateway.api.path import Path
from atrium_gateway.api.plans import list_plans, put_plan, remove_plan
from atrium_gateway.api.plans_schema import PlanList, PlanObject, PlanRemoved, PlanRequest
from atrium_gateway.api.prices import (
    PriceAnswer,
    PriceMade,
    PriceRequest,
    PricesQuery,
    set_price,
    show_prices,
)
from atrium_gateway.api.tenants import (
    change_tenant,
    create_tenant,
    delete_tenant,
    export_tenant,
    list_tenants,
    show_tenant,
)
from atrium_gateway.api.tenants_schema import (
    TenantChange,
    TenantDeleted,
    TenantList,
    TenantObject,
    TenantRequest,
    TenantsQuery,
)
from atrium_gateway.api.tokens import TokenAnswer, TokenRequest, create_token

ADMIN_PATHS = (
    Path("GET", "/api/keys", list_keys, "admin", operation(query=KeysQuery, answer=KeyList)),
    Path(
        "POST",
        "/api/keys",
        create_key,
        "admin",
        operation(body=KeyRequest, query=OfTenant, answer=KeyWithSecret, status=201),
    ),
    Path(
        "GET",
        "/api/keys/{key}",
        show_key,
        "admin",
        operation(path="key", query=OfTenant, answer=KeyObject),
    ),
    Path(
        "PATCH",
        "/api/keys/{key}",
        change_key,
        "admin",
        operation(path="key", body=KeyChange, query=OfTenant, answer=KeyObject),
    ),
    Path(
        "DELETE",
        "/api/keys/{key}",
        revoke_key,
        "admin",
        operation(path="key", query=OfTenant, answer=KeyObject),
    ),
    Path(
        "POST",
        "/api/keys/{key}/rotate",
        rotate_key,
        "admin",
        operation(path="key", body=KeyRotation, query=OfTenant, answer=KeyWithSecret),
    ),
    Path(
        "POST",
        "/api/tokens",
        create_token,
        "admin",
        operation(body=TokenRequest, answer=TokenAnswer, status=201),
    ),
    Path(
        "GET",
        "/api/tenants",
        list_tenants,
        "admin",
        operation(query=TenantsQuery, answer=TenantList),
    ),
    Path(
        "POST",
        "/api/tenants",
        create_tenant,
        "admin",
        operation(body=TenantRequest, answer=TenantObject, status=201),
    ),
    Path(
        "GET",
        "/api/tenants/{tenant}",
        show_tenant,
        "admin",
        operation(path="tenant", answer=TenantObject),
    ),
    Path(
        "PATCH",
        "/api/tenants/{tenant}",
        change_tenant,
        "admin",
        operation(path="tenant", body=TenantChange, answer=TenantObject),
    ),
    Path(
        "DELETE",
        "/api/tenants/{tenant}",
        delete_tenant,
        "admin",
        operation(path="tenant", answer=TenantDeleted),
    ),
    Path(
        "GET",
        "/api/tenants/{tenant}/export",
        export_tenant,
        "admin",
        operation(path="tenant", media=("application/jsonl",)),
    ),
    Path(
        "POST",
        "/api/models/{model}/load",
        load_model,
        "admin",
        operation(path="model", answer=ModelMoved),
    ),
    Path(
        "POST",
        "/api/models/{model}/unload",
        unload_model,
        "admin",
        operation(path="model", answer=ModelMoved),
    ),
    Path("GET", "/api/plans", list_plans, "admin", operation(answer=PlanList)),
    Path(
        "PUT",
        "/api/plans/{plan}",
        put_plan,
        "admin",
        operation(path="plan", body=PlanRequest, answer=PlanObject),
    ),
    Path(
        "DELETE",
        "/api/plans/{plan}",
        remove_plan,
        "admin",
        operation(path="plan", answer=PlanRemoved),
    ),
    Path(
        "GET", "/api/limits", show_limits, "admin", operation(query=LimitsQuery, answer=LimitList)
    ),
    Path(
        "PUT",
        "/api/limits",
        set_limit,
        "admin",
        operation(body=LimitRequest, query=OfTenant, answer=LimitList),
    ),
    Path(
        "DELETE", "/api/limits", remove_limit, "admin", operation(query=LimitKind, answer=LimitList)
    ),
    Path(
        "GET", "/api/prices", show_prices, "admin", operation(query=PricesQuery, answer=PriceAnswer)
    ),
    Path(
        "POST",
        "/api/prices",
        set_price,
        "admin",
        operation(body=PriceRequest, answer=PriceMade, status=201),
    ),
    Path("GET", "/api/audit", list_audit, "admin", operation(query=AuditQuery, answer=AuditAnswer)),
)

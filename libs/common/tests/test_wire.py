"""What goes over the wire and back is what it was."""

from dataclasses import fields
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrium.common.v1 import model_pb2, usage_pb2
from atrium_common.domain import Capability, ModelInfo, ModelState, Usage
from atrium_common.wire import (
    duration_from_proto,
    duration_to_proto,
    model_from_proto,
    model_to_proto,
    timestamp_to_proto,
    usage_from_proto,
    usage_to_proto,
)

TIMES = st.timedeltas(timedelta(days=-4000), timedelta(days=4000))
LENGTHS = st.timedeltas(timedelta(), timedelta(days=400))
COUNTS = st.integers(0, 2**40)
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)


@given(TIMES)
def test_a_duration_comes_back(value: timedelta) -> None:
    message = duration_to_proto(value)
    assert duration_from_proto(message) == value
    # protobuf's own rule: both parts have one sign.
    assert message.seconds * message.nanos >= 0
    assert message.ToTimedelta() == value


@given(
    st.builds(
        Usage,
        **{
            field.name: {"str": TEXT, "int": COUNTS, "bool": st.booleans()}.get(
                getattr(field.type, "__name__", str(field.type)), LENGTHS
            )
            for field in fields(Usage)
        },
    )
)
def test_usage_comes_back(usage: Usage) -> None:
    assert usage_from_proto(usage_to_proto(usage)) == usage


def test_usage_has_the_fields_of_its_message() -> None:
    assert {field.name for field in fields(Usage)} == set(usage_pb2.Usage.DESCRIPTOR.fields_by_name)


@given(
    st.builds(
        ModelInfo,
        id=TEXT,
        capabilities=st.lists(st.sampled_from(Capability)).map(tuple),
        engine=TEXT,
        aliases=st.lists(TEXT).map(tuple),
        state=st.sampled_from(ModelState),
        digest=TEXT,
        license=TEXT,
        context_length=COUNTS,
        embedding_dimensions=st.integers(0, 2**31 - 1),
        verified_at=st.none()
        | st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC)),
        detail=TEXT,
        memory_bytes=COUNTS,
        last_used_at=st.none()
        | st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC)),
    )
)
def test_a_model_comes_back(model: ModelInfo) -> None:
    assert model_from_proto(model_to_proto(model)) == model


def test_a_capability_of_a_newer_version_is_left_out() -> None:
    message = model_pb2.Model(id="m", capabilities=["chat", "smell"])
    assert model_from_proto(message).capabilities == (Capability.CHAT,)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        timestamp_to_proto(datetime(2026, 1, 1))

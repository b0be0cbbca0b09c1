"""Settings go over what the catalogue says of vLLM, and touch no other engine."""

from atrium_common.catalogue import ModelEntry
from atrium_common.domain import Capability
from atrium_llm.engines.vllm_options import with_arguments


def entry(engine: str) -> ModelEntry:
    return ModelEntry(
        id=f"{engine}-model",
        service="llm",
        capabilities=(Capability.CHAT,),
        engine=engine,
        options={"gpu_memory_utilization": 0.9, "max_num_seqs": 8},
    )


def test_a_setting_takes_the_place_of_the_catalogues_option() -> None:
    vllm, other = with_arguments(
        [entry("vllm"), entry("transformers")],
        {"gpu_memory_utilization": 0.4, "max_model_len": None},
    )
    assert vllm.options == {"gpu_memory_utilization": 0.4, "max_num_seqs": 8}
    assert other.options == entry("transformers").options

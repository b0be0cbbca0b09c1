"""What the loop needs to know of a tokenizer: the bytes of each token, and the ends.

Bytes, not strings: a character may be spread over several tokens.
"""

from collections.abc import Collection, Sequence

import llguidance.hf
from llguidance import LLTokenizer
from transformers import PreTrainedTokenizerFast

from atrium_llm.domain import TokenLogprob


class Vocabulary:
    """The tokens of one model.

    Attributes:
        size: Number of token ids that the model's output layer knows.
        end_tokens: Tokens that end a text.
        grammar: The same vocabulary, for `structured.py`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        *,
        size: int,
        end_tokens: Collection[int],
        markers: Sequence[str] = (),
    ) -> None:
        """Reads a tokenizer.

        Args:
            tokenizer: A tokenizer of the ``tokenizers`` library.
            size: Number of token ids.
            end_tokens: Tokens that end a text.
            markers: Special tokens that stay visible, e.g. ``"[TOOL_CALLS]"``.
        """
        self.size = size
        self.end_tokens = frozenset(end_tokens)
        ends = sorted(self.end_tokens) or None
        self.grammar: LLTokenizer = llguidance.hf.from_tokenizer(
            tokenizer, n_vocab=size, eos_token=ends
        )
        visible = {tokenizer.convert_tokens_to_ids(marker) for marker in markers}
        special = {id_ for id_, added in tokenizer.added_tokens_decoder.items() if added.special}
        self._hidden = frozenset(special - visible) | self.end_tokens
        self._bytes: dict[int, bytes] = {}

    def token_bytes(self, token: int) -> bytes:
        """Returns the bytes of a token; a special token's are its name."""
        known = self._bytes.get(token)
        if known is None:
            known = bytes(self.grammar.decode_bytes([token]))
            self._bytes[token] = known
        return known

    def text_bytes(self, token: int) -> bytes:
        """Returns what a token adds to the text: nothing for a special one."""
        return b"" if token in self._hidden else self.token_bytes(token)

    def logprob(self, token: int, value: float, top: Sequence[TokenLogprob] = ()) -> TokenLogprob:
        """Makes the wire's view of a token and its log probability."""
        data = self.token_bytes(token)
        return TokenLogprob(
            token_id=token,
            token=data.decode("utf-8", errors="replace"),
            token_bytes=data,
            logprob=min(value, 0.0),
            top=top,
        )

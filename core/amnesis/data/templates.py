"""Templates: how a row becomes text and tokens, as question and answer, chat or plain text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator

from amnesis.config.settings import Settings
from amnesis.data.chats import encode_chat, end_of_turn, written
from amnesis.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Encoded:
    """One text as tokens.

    Attributes:
        input_ids: the token ids of prompt and answer.
        prompt_length: how many of them are prompt; the others are the label tokens.
        cut: how many tokens were cut off at the end.
        counted: the places of the label tokens, where not all that follow the prompt are.
    """

    input_ids: tuple[int, ...]
    prompt_length: int
    cut: int = 0
    counted: tuple[int, ...] | None = None

    @property
    def truncated(self) -> bool:
        """Whether tokens were cut off at the end."""
        return self.cut > 0

    @property
    def key(self) -> str:
        """A digest of tokens and prompt length, by which reference scores are cached."""
        # As ','.join(map(str, input_ids)), in a quarter of the time.
        numbers = str(list(self.input_ids))[1:-1].replace(" ", "")
        text = f"{self.prompt_length}:{numbers}"
        if self.counted is not None:
            text += f":{','.join(map(str, self.counted))}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def label_count(self) -> int:
        """The number of label tokens."""
        if self.counted is not None:
            return len(self.counted)
        return len(self.input_ids) - self.prompt_length


class BaseTemplate(Settings):
    """What all templates share: the end of sequence, and the length at which texts are cut."""

    eos: bool = Field(
        True, description="the end of sequence (of a chat: of the turn) is a label too, as in TOFU"
    )
    max_length: int = Field(512, ge=2, description="longer examples are cut at their end (tokens)")
    spans: str | None = Field(
        None,
        description="the row's field that lists the parts of its answer to forget, as texts; rows "
        "without it are forgotten whole",
    )

    def within(self, config: PretrainedConfig) -> Self:
        """Return the template with ``max_length`` lowered to the model's number of positions."""
        positions = getattr(config, "max_position_embeddings", None)
        if not positions or positions >= self.max_length:
            return self
        return self.model_copy(update={"max_length": positions})

    def end_of(self, tokenizer: PreTrainedTokenizerBase) -> int | None:
        """Return the id of the token that ends an answer, where generation stops; None: none."""
        eos: int | None = tokenizer.eos_token_id
        return eos


class Template(BaseTemplate):
    """Question and answer, each a field of the row; the answer's tokens are the labels.

    Rows of prompts and completions need ``question: prompt, answer: completion``.
    """

    format: Literal["question_answer"] = Field(
        "question_answer", description="question_answer, chat (of the tokenizer), or text (plain)"
    )
    prompt: str = Field(
        "Question: {question}\nAnswer: ", description="text before the answer, with {question}"
    )
    question: str = Field("question", description="the row's field that is asked")
    answer: str = Field("answer", description="the row's field that is answered")

    @field_validator("prompt")
    @classmethod
    def _check_prompt(cls, prompt: str) -> str:
        if "{question}" not in prompt:
            raise ValueError("must contain {question}, where the row's question goes")
        return prompt

    def prompt_of(
        self,
        row: Row,
        tokenizer: PreTrainedTokenizerBase | None = None,
        question: str | None = None,
    ) -> str:
        """Return the prompt: the text before the answer.

        ``question`` names another field of the row to ask instead. Only ``{question}`` is replaced;
        other braces are text.

        Raises:
            DataError: the field is missing or is not text.
        """
        return self.prompt.replace("{question}", text_of(row, question or self.question))

    def answer_of(self, row: Row, answer: str | None = None) -> str:
        """Return the row's answer, or the text of the field that ``answer`` names.

        Raises:
            DataError: the field is missing or is not text.
        """
        return text_of(row, answer or self.answer)

    def check(self, row: Row) -> None:
        """Check that the row has a question and an answer.

        Raises:
            DataError: a field is missing or is not text.
        """
        text_of(row, self.question)
        self.answer_of(row)

    def encode(
        self, row: Row, tokenizer: PreTrainedTokenizerBase, answer: str | None = None
    ) -> Encoded:
        """Return the row's prompt and answer as tokens, cut to ``max_length``.

        ``answer`` is another text in the answer's place.

        Raises:
            DataError: a field is missing or is not text.
        """
        answer = self.answer_of(row) if answer is None else answer
        prompt = self.prompt_of(row, tokenizer)
        return encode(prompt, answer, tokenizer, eos=self.eos, max_length=self.max_length)


class ChatTemplate(Template):
    """A conversation in the tokenizer's chat template; the last answer's tokens are the labels.

    A row has ``messages``, a list of ``{role, content}`` that ends with the assistant's, or a
    question and an answer. Labels are what the assistant would generate: all that the template
    writes from the end of its prompt to the end of the assistant's turn.
    """

    format: Literal["chat"] = "chat"  # type: ignore[assignment]  # another tag of the union
    messages: str = Field("messages", description="the row's field that holds the messages")
    system: str | None = Field(None, description="a system message before rows without one")
    variables: dict[str, Any] = Field(
        default_factory=dict,
        description="what the chat template reads beside messages, as {enable_thinking: false}",
    )

    def prompt_of(
        self,
        row: Row,
        tokenizer: PreTrainedTokenizerBase | None = None,
        question: str | None = None,
    ) -> str:
        """Return the conversation up to where the last answer begins.

        ``question`` names a field of the row whose text replaces the last message before it.

        Raises:
            DataError: the tokenizer has no chat template, or the messages are not a conversation.
        """
        if tokenizer is None:
            raise DataError("a chat template is a tokenizer's: use template.format: chat with one")
        messages = self._conversation(row)[:-1]
        if question is not None:
            messages = [*messages[:-1], {"role": "user", "content": text_of(row, question)}]
        return written(messages, tokenizer, self.variables, asks=True)

    def answer_of(self, row: Row, answer: str | None = None) -> str:
        """Return the assistant's last message, or the text of the field that ``answer`` names.

        Raises:
            DataError: the messages are not a conversation, or the field is not text.
        """
        if answer is not None:
            return text_of(row, answer)
        return str(self._conversation(row)[-1]["content"])

    def check(self, row: Row) -> None:
        """Check that the row holds a conversation that ends with an answer.

        Raises:
            DataError: it does not.
        """
        self._conversation(row)

    def encode(
        self, row: Row, tokenizer: PreTrainedTokenizerBase, answer: str | None = None
    ) -> Encoded:
        """Return the row's conversation as tokens, cut to ``max_length``.

        ``answer`` is another text in the place of the assistant's last message.

        Raises:
            DataError: the messages are not a conversation, or the tokenizer's chat template cannot
                write it or writes its beginning in two ways.
        """
        *before, last = self._conversation(row)
        messages = [
            *before,
            {**last, "content": str(last["content"]) if answer is None else answer},
        ]
        ids, prompt_length = encode_chat(messages, tokenizer, self.variables, end=self.eos)
        kept = tuple(ids[: self.max_length])
        return Encoded(kept, max(prompt_length, 1), len(ids) - len(kept))

    def end_of(self, tokenizer: PreTrainedTokenizerBase) -> int | None:
        """Return the id of the token that ends the assistant's turn, else of the end of sequence.

        Raises:
            DataError: the tokenizer has no chat template.
        """
        messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
        _, token, _ = end_of_turn(messages, tokenizer, self.variables)
        return int(tokenizer.convert_tokens_to_ids(token)) if token else super().end_of(tokenizer)

    def _conversation(self, row: Row) -> Sequence[Mapping[str, Any]]:
        if self.messages not in row and self.question in row:
            system = [{"role": "system", "content": self.system}] if self.system else []
            return [
                *system,
                {"role": "user", "content": text_of(row, self.question)},
                {"role": "assistant", "content": text_of(row, self.answer)},
            ]
        messages = row.get(self.messages)
        if not isinstance(messages, Sequence) or isinstance(messages, str) or len(messages) < 2:
            raise DataError(
                f"field {self.messages!r} must be a list of at least two messages; "
                f"{did_you_mean(self.messages, row)}"
            )
        for index, message in enumerate(messages):
            if not (isinstance(message, Mapping) and {"role", "content"} <= set(message)):
                raise DataError(f"message {index} must have 'role' and 'content': {message!r:.80}")
        if messages[-1]["role"] != "assistant" or not str(messages[-1]["content"]).strip():
            raise DataError("the last message must be the assistant's, and not empty")
        return messages


class TextTemplate(BaseTemplate):
    """Plain text: every token but the first is a label; a long text becomes several chunks."""

    format: Literal["text"] = "text"
    text: str = Field("text", description="the row's field that holds the text")
    stride: int | None = Field(
        None, ge=1, description="tokens from one chunk's start to the next; None: max_length"
    )

    def prompt_of(
        self,
        row: Row,
        tokenizer: PreTrainedTokenizerBase | None = None,
        question: str | None = None,
    ) -> str:
        """Return an empty prompt, or the text of the field that ``question`` names."""
        return "" if question is None else text_of(row, question)

    def answer_of(self, row: Row, answer: str | None = None) -> str:
        """Return the row's text, or that of the field that ``answer`` names.

        Raises:
            DataError: the field is missing or is not text.
        """
        return text_of(row, answer or self.text)

    def check(self, row: Row) -> None:
        """Check that the row has a text.

        Raises:
            DataError: the field is missing or is not text.
        """
        self.answer_of(row)

    def encode(
        self, row: Row, tokenizer: PreTrainedTokenizerBase, answer: str | None = None
    ) -> Encoded:
        """Return the row's text, or ``answer`` in its place, as tokens, cut to one chunk.

        Raises:
            DataError: the field is missing or is not text.
        """
        answer = self.answer_of(row) if answer is None else answer
        return encode("", answer, tokenizer, eos=self.eos, max_length=self.max_length)

    def whole(self, row: Row, tokenizer: PreTrainedTokenizerBase) -> Encoded:
        """Return the row's text as tokens, however long it is.

        Raises:
            DataError: the field is missing or is not text.
        """
        return encode("", self.answer_of(row), tokenizer, eos=self.eos, max_length=None)

    def chunks(self, whole: Encoded) -> list[Encoded]:
        """Return a whole text in chunks of ``max_length`` tokens, which begin ``stride`` apart.

        No token is left out, and none is a label twice: where chunks overlap, the labels of an
        earlier chunk are the prompt of the next. Where only some tokens are labels, chunks without
        one are left out.
        """
        ids, length = whole.input_ids, self.max_length
        stride = min(self.stride or length, length)
        chunks: list[Encoded] = []
        end = 0
        for start in range(0, len(ids), stride):
            if end >= len(ids):
                break
            if 0 < start == len(ids) - 1:
                start -= 1  # a last token alone would have nothing to be predicted from
            prompt_length, end = max(end - start, 1), min(start + length, len(ids))
            counted = whole.counted and tuple(
                place - start for place in whole.counted if start + prompt_length <= place < end
            )
            if counted != ():
                chunks.append(Encoded(ids[start:end], prompt_length, counted=counted))
        return chunks


AnyTemplate = Annotated[
    Annotated[Template, Tag("question_answer")]
    | Annotated[ChatTemplate, Tag("chat")]
    | Annotated[TextTemplate, Tag("text")],
    Discriminator(
        lambda value: (
            value.get("format", "question_answer")
            if isinstance(value, Mapping)
            else getattr(value, "format", "question_answer")
        )
    ),
]


def text_of(row: Row, name: str) -> str:
    """Return the text in a row's field.

    Raises:
        DataError: the field is missing, blank, or not text.
    """
    value = row.get(name)
    if name not in row:
        setting = ""
        if name in ("question", "answer"):
            setting = (
                f"; name yours, in a recipe as template.{name}=…, or beside a file as "
                f"'{{path: FILE, fields: {{{name}: …}}}}'"
            )
        raise DataError(f"a row has no field {name!r}; {did_you_mean(name, row)}{setting}")
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"field {name!r} must be text that is not empty, but is {value!r:.80}")
    return value


def encode(
    prompt: str,
    answer: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    eos: bool = True,
    max_length: int | None = 512,
) -> Encoded:
    """Return a prompt and an answer as tokens; those that hold any of the answer are labels.

    Both are tokenized together, since most tokenizers merge across their boundary (the space
    before the answer); offsets tell which tokens reach into the answer. A slow tokenizer, which has
    no offsets, tokenizes them one after the other. ``eos`` appends the end of sequence, and
    ``max_length`` cuts the end off (None: never). The first token is never a label.
    """
    if tokenizer.is_fast:
        encoding = tokenizer(prompt + answer, return_offsets_mapping=True, verbose=False)
        ids = list(encoding["input_ids"])
        boundary = len(prompt)
        ends = [end for _, end in encoding["offset_mapping"]]
        prompt_length = next((i for i, end in enumerate(ends) if end > boundary), len(ids))
    else:
        prompt_ids = list(tokenizer(prompt)["input_ids"])
        ids = prompt_ids + list(tokenizer(answer, add_special_tokens=False)["input_ids"])
        prompt_length = len(prompt_ids)
    if eos and tokenizer.eos_token_id is not None and ids[-1:] != [tokenizer.eos_token_id]:
        ids.append(tokenizer.eos_token_id)
    input_ids = ids if max_length is None else ids[:max_length]
    # Nothing comes before the first token that could predict it, so it is never a label.
    return Encoded(tuple(input_ids), max(prompt_length, 1), len(ids) - len(input_ids))

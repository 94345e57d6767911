"""Reads e-mail: headers and body as the first page, then each attachment by its own reader on pages of its own."""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Callable
from email.message import Message
from typing import cast

from services.errors import CasemillError, DocumentError, UnsupportedMedia
from workers.documents.assembly import Draft
from workers.documents.decoding import decode
from workers.documents.html import declared_charset, html_to_text
from workers.documents.limits import MAX_ATTACHMENT_DEPTH, MAX_ATTACHMENTS, Limits
from workers.documents.sniff import sniff

ReadFile = Callable[[str, bytes, Limits], Draft]
"""Reads a file of a kind that :func:`workers.documents.sniff.sniff` named; called with kind, content and limits."""

_HEADERS = ("From", "Sender", "To", "Cc", "Bcc", "Reply-To", "Date", "Subject")
_MBOX = re.compile(rb"\n\r?\n>?From \S+ [^\r\n]*\d{4}\r?\n[!-9;-~]+:")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
# Scripts that part no words by blanks are taken sign by sign: lines may break between any two.
_WORD = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]|[^\W\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]+")
_MOST_PARTS = 5000
# The standard library's parser of addresses and encoded words takes the square of their length.
_LONGEST_PARSED = 16_000


def read_eml(data: bytes, limits: Limits, read_file: ReadFile) -> Draft:
    """Read one message and what is attached to it, messages within messages included.

    An attachment that cannot be read becomes a note. Raises ``document_nested_too_deep`` for multiparts within
    multiparts beyond reason, and the limits' errors for the sum of all parts.
    """
    if data.startswith((b"From ", b">From ")) and _MBOX.search(data):
        raise UnsupportedMedia(
            'The file is a mailbox with several messages. Save the messages as separate ".eml" files.',
            code="document_type_unsupported",
        )
    try:
        message = email.message_from_bytes(data, policy=email.policy.default)
        mail = _Mail(limits, read_file)
        mail.take(message, depth=0)
    except RecursionError as error:
        raise DocumentError(
            "The message nests its parts deeper than any mail program does.", code="document_nested_too_deep"
        ) from error
    return Draft("eml", tuple(mail.pages), tuple(mail.notes))


class _Mail:
    """Collects the pages and notes of a message and of all messages within it."""

    def __init__(self, limits: Limits, read_file: ReadFile) -> None:
        self.pages: list[str] = []
        self.notes: list[str] = []
        self._limits = limits
        self._read_file = read_file
        self._chars = 0
        self._attachments = 0
        self._left_out = 0
        self._parts = 0

    def take(self, message: Message, depth: int, heading: str = "") -> None:
        """Read one message: its own page first, then its attachments in order."""
        texts: list[str] = []
        attached: list[Message] = []
        self._sort(message, texts, attached)
        head = "\n".join(_headers(message))
        self._add("\n\n".join(part for part in (heading, head, *texts) if part))
        if any(type(defect).__name__ == "CloseBoundaryNotFoundDefect" for defect in message.defects):
            self.notes.append("The message has no end mark: it may be cut off.")
        for number, part in enumerate(attached, 1):
            self._attachment(part, depth, _name(part) or f"part {number}")
        if depth == 0 and self._left_out:
            self.notes.append(f"{self._left_out} attachments beyond the first {MAX_ATTACHMENTS} were not read.")

    def _sort(self, part: Message, texts: list[str], attached: list[Message]) -> None:
        """Part a message's leaves into the text that a mail program shows and what it lists as attachments."""
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise DocumentError(f"The message has more than {_MOST_PARTS:,} parts.", code="document_expands_too_much")
        kind = part.get_content_type()
        if kind == "message/rfc822" or _is_attached(part):
            attached.append(part)
        elif kind == "multipart/alternative" and part.is_multipart():
            self._choose(_children(part), texts, attached)
        elif part.is_multipart():
            for child in _children(part):
                self._sort(child, texts, attached)
        elif kind.startswith(("text/plain", "text/html", "multipart/")):
            texts.append(self._text(part))
        else:
            attached.append(part)

    def _choose(self, alternatives: list[Message], texts: list[str], attached: list[Message]) -> None:
        """Take the plain alternative, or the first that has text; attachments of any of them are kept.

        They should say the same. One most of whose words that text lacks is taken too, or instead where it has most of
        that text's words.
        """
        found: list[tuple[bool, list[str]]] = []
        for child in alternatives:
            own: list[str] = []
            self._sort(child, own, attached)
            if any(map(str.strip, own)):
                found.append((child.get_content_type() != "text/plain", own))
        chosen: list[str] = []
        said: set[str] = set()
        for _, own in sorted(found, key=lambda item: item[0]):
            words = _words(own)
            shared = len(words & said)
            if not chosen:
                chosen, said = own, words
            elif 2 * shared < min(len(words), len(said)):
                chosen += own
                said |= words
                self.notes.append("The message has versions of its text that say different things: they were all read.")
            elif 2 * shared < len(words):
                chosen, said = own, words
                self.notes.append("The message's plain text lacks most of what another version says, which was read.")
        texts += chosen

    def _text(self, part: Message) -> str:
        data = _content(part)
        declared = part.get_content_charset()
        html = part.get_content_type() == "text/html"
        decoded = decode(data, declared or (declared_charset(data) if html else None))
        if decoded is None:
            self.notes.append("A text part of the message is not text and was not read.")
            return ""
        if html:
            return html_to_text(decoded.text)
        return decoded.text.replace("\r\n", "\n").replace("\f", "\n").strip("\n")

    def _attachment(self, part: Message, depth: int, name: str) -> None:
        self._attachments += 1
        if self._attachments > MAX_ATTACHMENTS:
            self._left_out += 1
            return
        heading = f"Attachment: {name}"
        message: Message | None = None
        draft: Draft | None = None
        try:
            message = _message(part)
            if message is None:
                data = _content(part)
                draft = self._read_file(sniff(data), data, self._limits)
        except CasemillError as error:
            self.notes.append(f"Attachment {name!r} was not read: {error.detail}")
            return
        except MemoryError:  # what the message holds together is too much
            raise
        except Exception as error:  # a file that a reader trips over, however it does, must not take the message along
            self.notes.append(f"Attachment {name!r} was not read: its reader failed ({type(error).__name__}).")
            return
        # Outside the try: what goes beyond the limits here is the sum of all parts, hence the message's failure.
        if draft is not None:
            for number, page in enumerate(draft.pages):
                self._add(page if number else f"{heading}\n\n{page}")
            self.notes.extend(f"Attachment {name!r}: {note}" for note in draft.notes)
        elif message is not None and depth < MAX_ATTACHMENT_DEPTH:
            self.take(message, depth + 1, heading)
        else:
            self.notes.append(
                f"Attachment {name!r} was not read: it lies more than {MAX_ATTACHMENT_DEPTH} messages deep."
            )

    def _add(self, page: str) -> None:
        self.pages.append(page)
        self._chars += len(page) + 1
        self._limits.check_chars(self._chars)
        self._limits.check_pages(len(self.pages))


def _children(part: Message) -> list[Message]:
    payload: object = part.get_payload()
    if not isinstance(payload, list):
        return []
    items = cast("list[object]", payload)
    return [child for child in items if isinstance(child, Message)]


def _words(texts: list[str]) -> set[str]:
    return {word[0] for text in texts for word in _WORD.finditer(text.casefold())}


def _message(part: Message) -> Message | None:
    """The message that an attachment is, attached as such or as an ``.eml`` file."""
    if part.get_content_type() == "message/rfc822":
        inner = _children(part)
        if inner:
            return inner[0]
    data = _content(part)
    if data.strip() and sniff(data) == "eml":
        return email.message_from_bytes(data, policy=email.policy.default)
    return None


def _content(part: Message) -> bytes:
    content = part.get_payload(decode=True)
    return content if isinstance(content, bytes) else b""


def _is_attached(part: Message) -> bool:
    return not part.is_multipart() and (part.get_content_disposition() == "attachment" or bool(_name(part)))


def _name(part: Message) -> str:
    try:
        name = part.get_filename() or ""
    except (LookupError, ValueError, TypeError, AttributeError):  # malformed parameters trip the parser
        name = ""
    return _CONTROLS.sub(" ", name).strip()[:200]


def _headers(message: Message) -> list[str]:
    """The headers that a reader of the message sees, one a line."""
    lines: list[str] = []
    raw = [(name.lower(), value) for name, value in message.raw_items()]
    for name in _HEADERS:
        unparsed = [str(value) for key, value in raw if key == name.lower()]
        if sum(map(len, unparsed)) > _LONGEST_PARSED:
            lines.extend(f"{name}: {_CONTROLS.sub(' ', value).strip()}" for value in unparsed)
            continue
        try:
            values = [str(value) for value in message.get_all(name, [])]
        except (LookupError, ValueError, TypeError, AttributeError):  # malformed addresses trip the parser
            values = unparsed
        lines.extend(f"{name}: {text}" for value in values if (text := _CONTROLS.sub(" ", value).strip()))
    return lines

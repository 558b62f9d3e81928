"""The empty chat page: a greeting and questions to click, on the sample data."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from dbgpt_lite.messages import Mode
from dbgpt_lite.texts import Language
from dbgpt_lite.ui.i18n import say
from dbgpt_lite.ui.icons import MODE_ICONS, icon

SHOWN_PER_MODE = 2
ORDER: tuple[Mode, ...] = ("documents", "database", "chat")


def empty_page(
    questions: Mapping[Language, Mapping[Mode, Sequence[str]]], language: Language, conversation: str = ""
) -> Markup:
    """`questions`: language -> mode -> example questions. `conversation`: one that has files but no question yet."""
    asked = questions.get(language, {})
    groups = Markup("").join(_group(mode, asked[mode][:SHOWN_PER_MODE], language) for mode in ORDER if mode in asked)
    return Markup(
        '<div class="empty" data-conversation="{}"><h1>{}</h1><p>{}</p><div class="examples">{}</div></div>'
    ).format(conversation, say("greeting", language), say("greeting_more", language), groups)


def _group(mode: str, examples: Sequence[str], language: Language) -> Markup:
    items = Markup("").join(
        Markup(
            '<button type="button" class="example" data-action="ask" data-mode="{}" data-question="{}">{}</button>'
        ).format(mode, question, question)
        for question in examples
    )
    return Markup('<section data-mode="{}"><h2>{}<span>{}</span></h2>{}</section>').format(
        mode, icon(MODE_ICONS.get(mode, "chat")), say(f"examples_{mode}", language), items
    )

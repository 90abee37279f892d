"""DeepSeek V3.2: calls in DSML markup. The model has no chat template; `deepseek_encoder` writes its prompts."""

from __future__ import annotations

from jaxserve.text.formats.calls_tagged import TaggedCalls
from jaxserve.text.formats.deepseek_v31 import STOPS, SWITCHABLE
from jaxserve.text.formats.spec import Format, Handover, Thinking

DEEPSEEK_V32 = Format(
    name="deepseek_v32",
    calls=TaggedCalls(
        section_open="<｜DSML｜function_calls>",
        after_section_open="\n",
        call_open='<｜DSML｜invoke name="',
        name_close='">',
        after_name="\n",
        key_open='<｜DSML｜parameter name="',
        string_attribute='" string="',
        key_close='">',
        value_close="</｜DSML｜parameter>",
        after_value="\n",
        call_close="</｜DSML｜invoke>",
        after_call="\n",
        section_close="</｜DSML｜function_calls>",
        tokens=("｜DSML｜",),
    ),
    stops=STOPS,
    thinking=Thinking(trim="", before_close="", after_close=""),
    effort=SWITCHABLE,
    handover=Handover(modes=("disabled", "interleaved"), arguments="object"),
    model_types=("deepseek_v32",),
    template_marks=("DSML",),
    priority=3,
    renderer="deepseek_v32",
)

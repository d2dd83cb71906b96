"""The conversations that every template is rendered with."""

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the \"weather\" & <b>\nin a city",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "Ville, e.g. Orléans"},
                "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
                "days": {"type": "integer", "minimum": 1, "maximum": 14},
            },
            "required": ["location"],
        },
    },
}
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds",
        "parameters": {"type": "object", "properties": {"b": {"type": "number"}, "a": {"type": "number"}}},
    },
}
BARE = {"type": "function", "function": {"name": "now"}}
RICH = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Searches.\n\nTakes its time.",
        "parameters": {
            "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
            "type": "object",
            "properties": {
                "query": {"type": "string", "pattern": "^[a-z]+\\d*$", "title": "Query"},
                "filters": {
                    "type": "object",
                    "description": "which ones",
                    "properties": {
                        "lang": {"type": ["string", "null"], "default": None},
                        "score": {"type": "number", "default": 0.5, "exclusiveMinimum": 1e-7},
                        "deep": {
                            "type": "object",
                            "properties": {"a": {"type": "boolean", "default": False}, "b": {"type": "array", "items": {"type": "integer"}}},
                            "required": ["a"],
                        },
                    },
                    "additionalProperties": False,
                },
                "tags": {"type": "array", "items": {"type": "string", "enum": ["x", "y"]}, "minItems": 0},
                "either": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}}}, {"type": "null"}]},
                "one": {"oneOf": [{"const": 1}, {"const": "eins"}], "nullable": True},
                "anything": {},
                "limit": {"type": "integer", "default": 12345678901234567890},
                "ratio": {"type": "number", "enum": [1.0, 2.5, 1e22, -0.0]},
            },
            "required": ["query", "filters"],
        },
        "return": {"type": "object", "properties": {"hits": {"type": "integer"}}},
        "strict": True,
    },
}
TOOLS = [WEATHER, ADD]


def user(text, **more):
    return {"role": "user", "content": text, **more}


def system(text):
    return {"role": "system", "content": text}


def bot(text, **more):
    return {"role": "assistant", "content": text, **more}


def use(name, arguments, id=None):
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    if id is not None:
        call = {"id": id, **call}
    return call


def answer(content, **more):
    return {"role": "tool", "content": content, **more}


CALL = use("get_weather", {"location": "Orléans", "unit": "c", "days": 2, "f": 1.5, "ok": True, "none": None}, "abcdefghi")
CALL_TEXT = use("get_weather", '{"location": "Orléans", "days": 2}', "abcdefghi")
RESULT = answer('{"temp": 21.5, "sky": "<clear>"}', name="get_weather", tool_call_id="abcdefghi")
BASE = [
    system(" You are a bot. /no_think \n"),
    user("Hi there! "),
    bot("<think>\nhmm\n</think>\n\nHello — 你好"),
    user("weather in Orléans?"),
]
TURNS = [user("one"), bot("two"), user("three"), bot("four"), user("five")]
TEXT = lambda *parts: [{"type": "text", "text": p} for p in parts]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}

CASES = {}


def case(name, messages, **more):
    """Every case comes with and without the opening of the assistant's turn."""
    if more.get("continue_final_message"):
        CASES[name] = {"messages": messages, **more}
        return
    for agp in (True, False):
        CASES[name + ("+gen" if agp else "")] = {"messages": messages, "add_generation_prompt": agp, **more}


case("user", [user("x")])
case("system-user", [system("Be brief."), user("Why?")])
case("turns", TURNS)
case("system-turns", [system("You are kind.")] + TURNS)
case("base", BASE)
case("assistant-last", TURNS[:2])
case("system-only", [system("alone")])
case("assistant-first", [bot("I begin"), user("ok")])
case("two-users", [user("x"), user("y")])
case("two-systems", [system("a"), system("b"), user("c")])
case("late-system", [user("a"), bot("b"), system("c"), user("d")])
case("developer", [{"role": "developer", "content": "Be terse."}, user("Hi")])
case("developer-tools", [{"role": "developer", "content": "Be terse."}, user("Hi")], tools=TOOLS)
case("unknown-role", [{"role": "narrator", "content": "Once upon a time"}, user("Hi")])
case("empty", [system(""), user(""), bot(""), user("")])
case("blank", [system(" \n\t "), user("\n\n hi \n\n"), bot("  \u3000yes\u00a0\n"), user("\tso\r\nwhat\r")])
case("unicode", [system("Ünïcödé 🎉"), user("こんにちは\u2028世界 مرحبا שלום"), bot("ẞß ﬁ ǅ İ \u0301e\u200b"), user("👩‍👩‍👧‍👦 \x00\x1b\x7f\ufeff")])
case("tricky", [system("{{ not }} {% a %} template {# #}"), user("a \"quoted\" 'text' \\ back\\slash </s> <|im_end|> [INST] &amp; <b>"), bot("```py\nx = {'a': 1}\n```"), user("%s %d {} {0}")])
case("long", [user("lorem ipsum " * 40), bot("dolor\n" * 20), user("sit amet")])
case("extra-keys", [user("x", name="Ann", weight=1, unused=None), bot("y", name="bot", refusal=None, audio=None, function_call=None, tool_calls=None), user("z")])
case("none-content", [user("x"), bot(None), user("y")])
case("parts", [user(TEXT("see")), bot(TEXT("I ", "see")), user(TEXT("a", "b"))])
case("parts-system", [system(TEXT("be", "good")), user(TEXT("a"))])
case("parts-image", [user(TEXT("look") + [IMAGE] + TEXT("there"))])
case("parts-media", [user([{"type": "image"}, {"type": "video"}, {"type": "audio"}, {"type": "text", "text": "what?"}])])
case("parts-empty", [user([]), bot("?"), user(TEXT(""))])
case("content-number", [user(5)])

case("tools", [user("weather?")], tools=TOOLS)
case("tools-system", [system("Be brief."), user("weather?")], tools=TOOLS)
case("tools-none", [user("weather?")], tools=[])
case("tools-bare", [user("time?")], tools=[BARE])
case("tools-rich", [system("s"), user("find")], tools=[RICH, WEATHER])
case("tools-flat", [user("x")], tools=[WEATHER["function"]])
case("tools-turns", [system("s")] + TURNS, tools=TOOLS)
CALLED = [user("weather in Orléans?"), bot(None, tool_calls=[CALL])]
case("call", CALLED, tools=TOOLS)
case("call-text", [user("weather?"), bot(None, tool_calls=[CALL_TEXT])], tools=TOOLS)
case("call-content", [user("weather?"), bot("Let me see.\n", tool_calls=[CALL])], tools=TOOLS)
case("call-empty-content", [user("weather?"), bot("", tool_calls=[CALL]), RESULT], tools=TOOLS)
case("call-result", CALLED + [RESULT], tools=TOOLS)
case("call-result-answer", BASE + CALLED[1:] + [RESULT, bot("It is 21.5°C.")], tools=TOOLS)
case("call-result-more", CALLED + [RESULT, bot("It is 21.5°C."), user("and tomorrow?")], tools=TOOLS)
case("call-result-no-tools", CALLED + [RESULT, bot("ok"), user("thanks")])
case("call-text-result", [user("weather?"), bot("", tool_calls=[CALL_TEXT]), RESULT, bot("fine"), user("ok")], tools=TOOLS)
PARALLEL = [user("both"), bot("", tool_calls=[use("add", {"a": 1, "b": -2.0}, "call00001"), use("get_weather", {"location": "N'Djaména \"x\"\n"}, "call00002")])]
case("parallel", PARALLEL + [answer("-1", name="add", tool_call_id="call00001"), answer("hot", name="get_weather", tool_call_id="call00002")], tools=TOOLS)
case("parallel-answer", PARALLEL + [answer("-1", tool_call_id="call00001"), answer("hot", tool_call_id="call00002"), bot("done"), user("more")], tools=TOOLS)
case("call-no-args", [user("t"), bot("", tool_calls=[use("now", {}, "id0000001")]), answer("12:00", tool_call_id="id0000001")], tools=[BARE])
case("call-nested-args", [user("t"), bot("", tool_calls=[use("search", {"query": "q", "filters": {"lang": None, "deep": {"a": True, "b": [1, 2.5, "x", [], {}]}}, "tags": ["x"], "n": 1e16, "m": 1e-5, "z": 0}, "id0000001")]), answer({"hits": 3, "ok": None}, tool_call_id="id0000001")], tools=[RICH])
case("call-no-id", [user("t"), bot("", tool_calls=[{"function": {"name": "now", "arguments": {}}}]), answer("12:00")], tools=[BARE])
case("call-flat", [user("t"), bot("", tool_calls=[{"name": "add", "arguments": {"a": 1}}]), answer("1")], tools=TOOLS)
case("result-parts", CALLED + [answer(TEXT("sunny", " and hot"), tool_call_id="abcdefghi", name="get_weather")], tools=TOOLS)
case("result-json", CALLED + [answer('{"output": [1, 2, {"a": null}]}', tool_call_id="abcdefghi")], tools=TOOLS)
case("result-first", [answer("x"), user("y")])
case("call-two-rounds", CALLED + [RESULT, bot("next", tool_calls=[use("add", {"a": 1, "b": 2}, "secondone")]), answer("3", tool_call_id="secondone", name="add"), bot("3"), user("thanks")], tools=TOOLS)

THOUGHT = [user("why?"), bot("because", reasoning_content="Let me think.\nHm."), user("and?")]
case("reasoning", THOUGHT)
case("reasoning-last", THOUGHT[:2])
case("reasoning-empty", [user("why?"), bot("because", reasoning_content=""), user("and?")])
case("reasoning-older-name", [user("why?"), bot("because", reasoning="r1"), user("and?"), bot("so", thinking="r2"), user("ok")])
case("reasoning-call", [user("weather?"), bot("", reasoning_content="I need a tool.", tool_calls=[CALL]), RESULT], tools=TOOLS)
case("reasoning-call-answer", [user("weather?"), bot("", reasoning_content="I need a tool.", tool_calls=[CALL]), RESULT, bot("warm", reasoning_content="Got it.")], tools=TOOLS)
case("reasoning-call-more", [system("s"), user("weather?"), bot("ok", reasoning_content="I need a tool.", tool_calls=[CALL]), RESULT, bot("warm", reasoning_content="Got it."), user("thanks"), bot("np", reasoning_content="bye"), user("x")], tools=TOOLS)
case("think-tags", [user("q"), bot("<think>\na\n</think>\n\nb"), user("r"), bot("<think>c</think>d</think>e")])
case("thinking-on", [user("q"), bot("a"), user("b")], kwargs={"enable_thinking": True, "thinking": True})
case("thinking-off", [user("q"), bot("a"), user("b")], kwargs={"enable_thinking": False, "thinking": False})
case("thinking-off-reasoning", THOUGHT, kwargs={"enable_thinking": False, "thinking": False})
case("thinking-on-tools", CALLED + [RESULT], tools=TOOLS, kwargs={"enable_thinking": True, "thinking": True})
case("preserve-thinking", THOUGHT + [bot("end", reasoning_content="t2")], kwargs={"preserve_thinking": True, "clear_thinking": False, "keep_past_thinking": True})
case("effort-low", [user("q")], kwargs={"reasoning_effort": "low", "thinking_budget": 512, "thinking_effort": "low"})
case("effort-high", [system("s"), user("q")], tools=TOOLS, kwargs={"reasoning_effort": "high", "thinking_budget": 0, "model_identity": "You are M."})
case("effort-none", [user("q")], kwargs={"reasoning_effort": "none", "thinking_budget": -1})
case("dates", [system("s"), user("q")], kwargs={"date_string": "01 Jan 2025", "current_date": "2025-01-01", "today": "x", "currentDateTime": "then"})
case("llama-switches", [system("s"), user("q"), bot("", tool_calls=[CALL])], tools=TOOLS, kwargs={"tools_in_user_message": False, "builtin_tools": ["brave_search", "get_weather"], "custom_tools": None})
case("builtin-tools", [user("q")], kwargs={"builtin_tools": ["browser", "python", "code_interpreter"], "xml_tools": TOOLS, "python_tools": TOOLS})
case("documents", [user("q")], documents=[{"title": "T1", "text": "first\ntext"}, {"title": "T2", "text": "zwei", "doc_id": 7}])
case("documents-tools", [system("s"), user("q")], tools=TOOLS, documents=[{"title": "T1", "text": "t"}], kwargs={"citations": True, "safety_mode": "STRICT", "controls": {"length": "long"}})
case("continue", [user("q"), bot("The answer is ")], continue_final_message=True)
case("continue-trimmed", [user("q"), bot("so:\n\n")], continue_final_message=True)
case("continue-parts", [user("q"), bot(TEXT("a", "b"))], continue_final_message=True)
case("continue-user", [user("unfinished")], continue_final_message=True)

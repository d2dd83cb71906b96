package chat_test

import (
	"testing"

	"github.com/dynamo-go/dynamo/chat"
)

// benchmarks are templates with a conversation of the golden file each;
// scripts/chat/bench.py renders the same with jinja2.
var benchmarks = []struct{ name, template, conversation string }{
	{"ChatML", "written-chatml.jinja", "system-turns+gen"},
	{"SmolLM2", "written-smollm.jinja", "system-turns+gen"},
	{"Llama-3.1-tools", "meta-llama-Llama-3.1-8B-Instruct.jinja", "call-result-more+gen"},
	{"Qwen3", "Qwen-Qwen3-0.6B.jinja", "reasoning+gen"},
	{"Qwen3-tools", "Qwen-Qwen3-0.6B.jinja", "parallel-answer+gen"},
	{"DeepSeek-V3.1", "deepseek-ai-DeepSeek-V3.1.jinja", "system-turns+gen"},
	{"gpt-oss-tools", "openai-gpt-oss-120b.jinja", "call-result-more+gen"},
}

func BenchmarkRender(b *testing.B) {
	var g goldenFile
	readGolden(b, "golden.json.bz2", &g)
	templates := readTemplates(b)
	for _, bench := range benchmarks {
		b.Run(bench.name, func(b *testing.B) {
			tmpl, in := templates[bench.template], g.input(b, g.Cases[bench.conversation])
			limits := chat.DefaultLimits()
			var out []byte
			var err error
			b.ReportAllocs()
			for b.Loop() {
				if out, err = tmpl.Render(out[:0], in, limits); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(out)), "prompt-bytes")
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	source := readTemplates(b)["Qwen-Qwen3-0.6B.jinja"].Source()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := chat.Compile(source); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseJSON(b *testing.B) {
	var g goldenFile
	readGolden(b, "golden.json.bz2", &g)
	data := g.Cases["call-result-more"].Messages
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := chat.ParseJSON(data); err != nil {
			b.Fatal(err)
		}
	}
}

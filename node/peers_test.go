package node

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestPeerFetch sends a prompt that one worker holds to another: it fetches the KV, in the
// time that the link takes, and answers as ever, as long as the first one is there.
func TestPeerFetch(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		lends := mocked(func(m *MockerConfig) { m.Lends, m.TransferBandwidth = true, 131072e4 }) // 100 µs a token
		w1 := b.start("w1", lends)
		b.start("w2", lends)
		b.start("front", func(c *Config) { c.Cluster.Routing.Mode = "kv" })
		b.awaitModels("front", "m")
		b.awaitState("front", "w1", "ready")
		b.awaitState("front", "w2", "ready")
		ask := func(worker int, words string) (text, explained string, took time.Duration) {
			body := fmt.Sprintf(`{"model":"m","prompt":%q,"max_tokens":3,"ignore_eos":true,"temperature":0}`, strings.Repeat(words, 100))
			req, err := http.NewRequestWithContext(t.Context(), "POST", "http://front:80/v1/completions", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-Dynamo-Worker-Instance-Id", fmt.Sprint(worker))
			began := time.Now()
			resp, err := b.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			answer, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Fatal(resp.Status, string(answer), err)
			}
			took = time.Since(began)
			_, text, _ = strings.Cut(string(answer), `"choices":`)
			text, _, _ = strings.Cut(text, `"usage"`)
			_, explained = b.get("front", "/v1/requests/"+resp.Header.Get("X-Request-Id")+"/explain")
			return text, explained, took
		}
		want, _, _ := ask(1, "some words ")
		time.Sleep(time.Second) // word of it comes
		got, explained, took := ask(2, "some words ")
		if got != want || !strings.Contains(explained, `"outcome":"fetched"`) || took < 100*time.Millisecond {
			t.Errorf("got %s after %v, want %s; %s", got, took, want, explained)
		}
		want, _, _ = ask(1, "other words")
		time.Sleep(time.Second)
		w1.kill()
		got, explained, _ = ask(2, "other words")
		if got != want || strings.Contains(explained, `"outcome":"fetched"`) {
			t.Errorf("with nobody to lend: got %s, want %s; %s", got, want, explained)
		}
	})
}

package selection_test

import (
	"bytes"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo/selection"
)

// BenchmarkSelect asks where a prompt of 4,500 tokens should go, without a socket.
func BenchmarkSelect(b *testing.B) {
	s := open(b, nil)
	ids := make([]string, 4500)
	for i := range ids {
		ids[i] = strconv.Itoa(i * 7 % 100000)
	}
	body := []byte(`{"model":"m","token_ids":[` + strings.Join(ids, ",") + `]}`)
	s.server.AddModel(&selection.Model{Name: "m", Router: s.router})
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		s.server.Handler().ServeHTTP(w, httptest.NewRequest("POST", "/select", bytes.NewReader(body)))
		if w.Code != 200 {
			b.Fatal(w.Code, w.Body)
		}
	}
}

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// The limits of a server.
const (
	maxCannedBody   = 1 << 20 // of a request's body; a longer one ends its connection
	maxCannedTokens = 1 << 16 // of an answer; more are not sent
	maxKept         = 1 << 22 // times that are remembered; later ones are not
)

// server answers OpenAI's API: every answer has max_tokens words, each in a write of
// its own, as engines send them. It does no work beyond that, so that what is
// measured is what stands before it.
type server struct {
	model       string
	first, pace time.Duration
	burst       bool

	made struct {
		sync.Mutex
		first, gaps []time.Duration // how long answers waited, as they were written
	}
}

// serve serves at each of the addresses until ctx ends or accepting fails. Its
// connections end with the process.
func (s *server) serve(ctx context.Context, addresses []string) error {
	failed := make(chan error, len(addresses))
	for _, address := range addresses {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					failed <- err
					return
				}
				go s.answerAll(c)
			}
		}()
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// answerAll answers the requests of a connection until it ends.
func (s *server) answerAll(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		body, err := io.ReadAll(io.LimitReader(q.Body, maxCannedBody))
		if err == nil && q.Method == http.MethodPost {
			err = s.stream(c, q.URL.Path, body)
		} else if err == nil {
			list := fmt.Sprintf(`{"object":"list","data":[{"id":%q,"object":"model","created":1,"owned_by":"canned"}]}`, s.model)
			_, err = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(list), list)
		}
		if err != nil {
			return
		}
	}
}

// stream answers one request.
func (s *server) stream(w io.Writer, path string, body []byte) error {
	came := time.Now()
	var q struct {
		MaxTokens int `json:"max_tokens"`
	}
	if err := json.Unmarshal(body, &q); err != nil {
		return err
	}
	n := min(max(q.MaxTokens, 1), maxCannedTokens)
	object, piece, last := "text_completion", `"text":" word"`, `"text":""`
	if strings.Contains(path, "/chat/") {
		object, piece, last = "chat.completion.chunk", `"delta":{"content":" word"}`, `"delta":{}`
	}
	head := fmt.Sprintf(`data: {"id":"canned","object":%q,"created":1760000000,"model":%q,"choices":[`, object, s.model)
	chunk := func(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }
	if _, err := io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"); err != nil {
		return err
	}
	event := chunk(head + `{"index":0,` + piece + `,"logprobs":null,"finish_reason":null}]}` + "\n\n")
	if err := s.events(w, came, event, n); err != nil {
		return err
	}
	usage := fmt.Sprintf(`{"prompt_tokens":1,"completion_tokens":%d,"total_tokens":%d}`, n, n+1)
	_, err := io.WriteString(w, chunk(head+`{"index":0,`+last+`,"logprobs":null,"finish_reason":"length"}]}`+"\n\n")+
		chunk(head+`],"usage":`+usage+"}\n\n")+chunk("data: [DONE]\n\n")+"0\r\n\r\n")
	return err
}

// events writes event n times. Each is due a drawn time after the one before was due,
// so that a late one does not delay the rest; when each was written is remembered.
func (s *server) events(w io.Writer, came time.Time, event string, n int) error {
	switch {
	case s.burst:
		_, err := io.WriteString(w, strings.Repeat(event, n))
		return err
	case s.first == 0 && s.pace == 0:
		for range n {
			if _, err := io.WriteString(w, event); err != nil {
				return err
			}
		}
		return nil
	}
	gaps := make([]time.Duration, 0, n-1)
	due, before, first := came.Add(drawn(s.first, rand.Float64())), came, time.Duration(0)
	for i := range n {
		time.Sleep(time.Until(due))
		now := time.Now()
		if _, err := io.WriteString(w, event); err != nil {
			return err
		}
		if i == 0 {
			first = now.Sub(before)
		} else {
			gaps = append(gaps, now.Sub(before))
		}
		before, due = now, due.Add(drawn(s.pace, rand.Float64()))
	}
	s.made.Lock()
	defer s.made.Unlock()
	if len(s.made.gaps)+len(gaps) <= maxKept {
		s.made.first, s.made.gaps = append(s.made.first, first), append(s.made.gaps, gaps...)
	}
	return nil
}

// print prints percentiles of what was made, in milliseconds: a line each, its name
// before them.
func (s *server) print(w io.Writer) {
	s.made.Lock()
	defer s.made.Unlock()
	for _, m := range []struct {
		name  string
		times []time.Duration
	}{{"ttft", s.made.first}, {"icl", s.made.gaps}} {
		if len(m.times) == 0 {
			continue
		}
		slices.Sort(m.times)
		fmt.Fprint(w, m.name)
		for _, p := range []int{50, 90, 95, 99} {
			fmt.Fprintf(w, " p%d=%.3f", p, float64(m.times[(len(m.times)-1)*p/100].Microseconds())/1000)
		}
		fmt.Fprintln(w)
	}
}

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// What the servers of canned accept of a request's body, and answer at most.
const (
	maxCannedBody   = 1 << 20
	maxCannedTokens = 1 << 16
)

// canned serves OpenAI's API at each of the addresses until accepting fails: every
// answer has max_tokens words, all at once but each in a write of its own, as
// engines send them. It does no work beyond that, so that what is measured is what
// stands before it.
func canned(addresses, model string) error {
	failed := make(chan error)
	for _, address := range strings.Split(addresses, ",") {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		go func() { // ends with the process
			for {
				c, err := l.Accept()
				if err != nil {
					failed <- err
					return
				}
				go answerAll(c, model)
			}
		}()
	}
	return <-failed
}

// answerAll answers the requests of a connection until it ends.
func answerAll(c net.Conn, model string) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		body, err := io.ReadAll(io.LimitReader(q.Body, maxCannedBody))
		if err == nil && q.Method == http.MethodPost {
			err = stream(c, q.URL.Path, model, body)
		} else if err == nil {
			list := fmt.Sprintf(`{"object":"list","data":[{"id":%q,"object":"model","created":1,"owned_by":"canned"}]}`, model)
			_, err = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(list), list)
		}
		if err != nil {
			return
		}
	}
}

// stream answers one request.
func stream(w io.Writer, path, model string, body []byte) error {
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
	head := fmt.Sprintf(`data: {"id":"canned","object":%q,"created":1760000000,"model":%q,"choices":[`, object, model)
	chunk := func(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }
	if _, err := io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"); err != nil {
		return err
	}
	event := chunk(head + `{"index":0,` + piece + `,"logprobs":null,"finish_reason":null}]}` + "\n\n")
	for range n {
		if _, err := io.WriteString(w, event); err != nil {
			return err
		}
	}
	usage := fmt.Sprintf(`{"prompt_tokens":1,"completion_tokens":%d,"total_tokens":%d}`, n, n+1)
	_, err := io.WriteString(w, chunk(head+`{"index":0,`+last+`,"logprobs":null,"finish_reason":"length"}]}`+"\n\n")+
		chunk(head+`],"usage":`+usage+"}\n\n")+chunk("data: [DONE]\n\n")+"0\r\n\r\n")
	return err
}

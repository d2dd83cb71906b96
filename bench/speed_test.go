package bench_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo/bench"
)

// cannedEnv makes the test binary a server of canned answers: its value is the pause
// between two events of an answer.
const cannedEnv = "BENCH_TEST_CANNED"

func TestMain(m *testing.M) {
	if pause := os.Getenv(cannedEnv); pause != "" {
		if err := canned(pause); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// cannedEvents is the length of a canned answer.
const cannedEvents = 256

// canned serves until its standard input ends.
func canned(pause string) error {
	gap, err := time.ParseDuration(pause)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go cannedConn(c, gap)
		}
	}()
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func cannedConn(c net.Conn, gap time.Duration) {
	defer c.Close()
	event := "data: {\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n"
	chunk := []byte(fmt.Sprintf("%x\r\n%s\r\n", len(event), event))
	all := []byte(strings.Repeat(string(chunk), cannedEvents))
	end := []byte("e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
	for r := bufio.NewReader(c); ; {
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, err = io.Copy(io.Discard, q.Body)
		if err == nil {
			_, err = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
		}
		if gap == 0 && err == nil {
			_, err = c.Write(all)
		}
		for i := 0; gap > 0 && i < cannedEvents && err == nil; i++ {
			time.Sleep(gap)
			_, err = c.Write(chunk)
		}
		if err == nil {
			_, err = c.Write(end)
		}
		if err != nil {
			return
		}
	}
}

// BenchmarkRun is what a chunk costs the client over real connections, with the
// server in a process of its own: flat out, and paced at 20,000 chunks a second,
// each in a packet of its own.
func BenchmarkRun(b *testing.B) {
	for _, tt := range []struct {
		name        string
		pause       time.Duration
		connections int
	}{{"flat_out", 0, 16}, {"paced", 10 * time.Millisecond, 200}} {
		b.Run(tt.name, func(b *testing.B) {
			s := exec.Command(os.Args[0])
			s.Env, s.Stderr = append(os.Environ(), cannedEnv+"="+tt.pause.String()), os.Stderr
			in, err1 := s.StdinPipe()
			out, err2 := s.StdoutPipe()
			if err1 != nil || err2 != nil {
				b.Fatal(err1, err2)
			}
			if err := s.Start(); err != nil {
				b.Fatal(err)
			}
			defer func() { _ = in.Close(); _ = s.Wait() }()
			address, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				b.Fatal(err)
			}
			c := bench.DefaultConfig()
			c.URLs, c.Model, c.Concurrency = []string{"http://" + strings.TrimSpace(address)}, "m", tt.connections
			c.Requests, c.WarmUp = max(b.N/cannedEvents, tt.connections), tt.connections
			if tt.pause > 0 {
				c.WarmUp = 0
			}
			b.ResetTimer()
			r, err := bench.Run(b.Context(), c)
			if err != nil || len(r.Errors) > 0 {
				b.Fatal(err, r.ErrorDetails)
			}
			b.ReportMetric(float64(r.Chunks)/r.Duration.Seconds(), "chunks/s")
			b.ReportMetric(r.Client.CPUSeconds/float64(r.Chunks)*1e6, "CPU-µs/chunk")
			b.ReportMetric(float64(r.Chunks)/r.Client.CPUSeconds, "chunks/CPU-s")
		})
	}
}

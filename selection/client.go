package selection

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/plane/rpc"
)

// Client calls the methods of a selection service, over whichever transport it was
// made for.
type Client struct {
	ask func(ctx context.Context, x *method, message []byte) ([]byte, error)
}

// NewClient returns a client over rpc. The peer is run by its owner.
func NewClient(p *rpc.Peer) *Client {
	return &Client{func(ctx context.Context, x *method, message []byte) ([]byte, error) {
		call := rpc.Call{Method: rpcPrefix + x.name, Request: message}
		call.Deadline, _ = ctx.Deadline()
		stream, err := p.Open(ctx, call)
		if err != nil {
			return nil, err
		}
		defer stream.Cancel(nil) // nothing to a stream that has ended
		b, err := stream.Recv()
		if err != nil {
			if err == io.EOF { // itself: the stream has ended well
				err = errSilent
			}
			return nil, err
		}
		return bytes.Clone(b), nil
	}}
}

var errSilent = &dynamo.Error{Kind: dynamo.KindCorrupt, Message: "the service answered with nothing; do both sides run the same version?"}

// NewHTTPClient returns a client over HTTP: base is the service's address, such as
// http://127.0.0.1:8092, and key what it wants to be brought; empty is nothing.
func NewHTTPClient(c *http.Client, base, key string) *Client {
	return &Client{func(ctx context.Context, x *method, message []byte) ([]byte, error) {
		path, body, err := x.address(message)
		if err != nil {
			return nil, err
		}
		r, err := http.NewRequestWithContext(ctx, x.verb, strings.TrimRight(base, "/")+path, bytes.NewReader(body))
		if err != nil {
			return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("%q is no address such as http://127.0.0.1:8092", base), Err: err}
		}
		r.Header.Set("Content-Type", "application/json")
		if key != "" {
			r.Header.Set("Authorization", "Bearer "+key)
		}
		answer, err := c.Do(r)
		if err != nil {
			return nil, &dynamo.Error{Kind: dynamo.KindUnavailable, Message: "the service cannot be reached", Err: err}
		}
		defer answer.Body.Close()
		b, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswerBytes+1))
		switch {
		case err != nil:
			return nil, &dynamo.Error{Kind: dynamo.KindUnavailable, Message: "the service's answer broke off", Err: err}
		case len(b) > maxAnswerBytes:
			return nil, &dynamo.Error{Kind: dynamo.KindCorrupt, Message: fmt.Sprintf("the service's answer is longer than %d bytes", maxAnswerBytes)}
		case answer.StatusCode >= http.StatusBadRequest:
			return nil, errorOf(answer, b)
		}
		return b, nil
	}}
}

// Call calls a method, one of Methods, with a JSON object, and returns the answer's
// JSON. An empty message is one without fields. Errors are a *dynamo.Error with what
// the service says.
func (c *Client) Call(ctx context.Context, name string, message []byte) ([]byte, error) {
	x, err := find(name)
	if err != nil {
		return nil, err
	}
	return c.ask(ctx, x, message)
}

// address makes a message into what HTTP has instead: the path, with the fields that
// stand in it, and a body with the others.
func (x *method) address(message []byte) (path string, body []byte, err error) {
	path, body = x.path, message
	for _, param := range wildcards(x.path) {
		var raw jsontext.Value
		if raw, body, err = cut(body, param); err != nil {
			return "", nil, err
		}
		id, err := value{param: param, raw: raw}.identity()
		if err != nil {
			return "", nil, err
		}
		path = strings.ReplaceAll(path, "{"+param+"}", url.PathEscape(id))
	}
	return path, body, nil
}

// identity is the text that stands for an id in an address.
func (v value) identity() (string, error) {
	if v.raw == nil {
		return "", missing(v.param)
	}
	if v.param == "worker_id" {
		var w dynamo.WorkerID
		err := v.worker(&w)
		return w.String(), err
	}
	var n name
	err := v.name(&n)
	if err == nil && n == "" {
		err = missing(v.param)
	}
	return string(n), err
}

// cut takes a field out of an object; nil: it is not there.
func cut(object []byte, param string) (field jsontext.Value, rest []byte, err error) {
	if len(bytes.TrimSpace(object)) == 0 {
		return nil, object, nil
	}
	d := jsontext.NewDecoder(bytes.NewBuffer(object))
	if d.PeekKind() != '{' {
		return nil, nil, decode(&message{body: object}, nil, &nothing{}) // which says why not
	}
	b := new(bytes.Buffer)
	e := jsontext.NewEncoder(b)
	err = copyToken(d, e)
	for err == nil && d.PeekKind() != '}' {
		var token jsontext.Token
		if token, err = d.ReadToken(); err != nil {
			break
		}
		own := token.String() == param
		if !own {
			err = e.WriteToken(token)
		}
		v, fault := d.ReadValue()
		switch {
		case fault != nil:
			err = fault
		case !own:
			err = e.WriteValue(v)
		case v.Kind() != 'n':
			field = v.Clone()
		}
	}
	if err == nil {
		err = copyToken(d, e)
	}
	if err != nil {
		return nil, nil, syntax(err)
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return nil, nil, errMore
	}
	return field, b.Bytes(), nil
}

func copyToken(d *jsontext.Decoder, e *jsontext.Encoder) error {
	token, err := d.ReadToken()
	if err != nil {
		return err
	}
	return e.WriteToken(token)
}

// errorOf is the error that an answer over HTTP stands for.
func errorOf(answer *http.Response, body []byte) error {
	var b struct {
		Error struct {
			Message string `json:"message"`
			Param   string `json:"param"`
			Code    string `json:"code"`
		} `json:"error"`
	}
	e := &dynamo.Error{Kind: dynamo.KindInternal}
	for k := range dynamo.KindCorrupt + 1 {
		if k.Info().HTTPStatus == answer.StatusCode {
			e.Kind = k
			break
		}
	}
	if err := json.Unmarshal(body, &b); err != nil || b.Error.Message == "" {
		e.Message = fmt.Sprintf("the server answers %s, and not as a selection service does; is the address right?", answer.Status)
		return e
	}
	e.Message, e.Param = b.Error.Message, b.Error.Param
	if _, own := statuses[b.Error.Code]; own {
		e.Kind = dynamo.KindInvalid
	}
	if b.Error.Code != e.Kind.String() { // which stands for none
		e.Code = b.Error.Code
	}
	if n, err := strconv.ParseUint(answer.Header.Get("Retry-After"), 10, 16); err == nil {
		e.RetryAfter = time.Duration(n) * time.Second
	}
	return e
}

// missing is the error of a message without a field that it must have.
func missing(param string) *dynamo.Error {
	return fault(param, "%s is not there; say which one is meant", param)
}

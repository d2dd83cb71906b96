package kvwire

import "github.com/dynamo-go/dynamo"

func corrupt(message string) error {
	return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: message}
}

func invalid(message string) error {
	return &dynamo.Error{Kind: dynamo.KindInvalid, Message: message}
}

func lost(message string, err error) error {
	return &dynamo.Error{Kind: dynamo.KindUnavailable, Message: message, Err: err}
}

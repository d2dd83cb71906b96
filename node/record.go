package node

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/dynamo-go/dynamo/frontend"
)

// validateRecording reports the faults of the request trace, if one is wanted.
func (c *Config) validateRecording() error {
	if c.Recording.Path == "" {
		if c.RecordingKeyFile != "" {
			return errors.New("--request-trace-key-file is of no use without --request-trace")
		}
		return nil
	}
	return c.Recording.Validate()
}

// openRecorder opens the request trace, if one is wanted.
func (n *Node) openRecorder() error {
	c := n.cfg.Recording
	if c.Path == "" || n.cfg.Role == RoleWorker {
		return nil
	}
	if path := n.cfg.RecordingKeyFile; path != "" {
		var err error
		if c.Key, err = readRecordKey(path); err != nil {
			return fmt.Errorf("--request-trace-key-file: %w", err)
		}
	}
	c.Logger, c.Registry = n.cfg.Logger, n.registry
	var err error
	n.recorder, err = frontend.NewRecorder(c)
	return err
}

func readRecordKey(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	key, err := io.ReadAll(io.LimitReader(f, maxRecordKey+1))
	if err == nil && len(key) > maxRecordKey {
		err = fmt.Errorf("%s has more than %d bytes; a key is short", path, maxRecordKey)
	}
	if key == nil {
		key = []byte{} // an empty file is a key that is too short, not none
	}
	return key, err
}

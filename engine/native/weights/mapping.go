package weights

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/dynamo-go/dynamo"
)

// mapping is a file in memory, read-only.
type mapping struct {
	path string
	data []byte
}

// openMapping maps a regular file of at least min bytes.
func openMapping(path string, min int64) (*mapping, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &dynamo.Error{Kind: dynamo.KindNotFound, Message: fmt.Sprintf("there is no model file %s: check the path", path), Err: err}
	case err != nil:
		return nil, invalid("model file %s cannot be read: %v", path, err)
	case !info.Mode().IsRegular():
		return nil, invalid("%s is not a regular file: name a model file", path)
	case info.Size() < min:
		return nil, corrupt("%s has only %d bytes: %s", path, info.Size(), redo)
	case info.Size() != int64(int(info.Size())):
		return nil, invalid("%s has %d bytes, too many for this machine's addresses", path, info.Size())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, invalid("model file %s cannot be opened: %v", path, err)
	}
	defer f.Close()
	data, err := mapFile(f, int(info.Size()))
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	return &mapping{path: path, data: data}, nil
}

// close unmaps the file. Closing twice does nothing.
func (m *mapping) close() error {
	data := m.data
	m.data = nil
	if data == nil {
		return nil
	}
	if err := unmapFile(data); err != nil {
		return fmt.Errorf("unmap %s: %w", m.path, err)
	}
	return nil
}

// release drops the pages from this process; they are read again when touched.
func (m *mapping) release() {
	if len(m.data) > 0 {
		releasePages(m.data)
	}
}

//go:build dl && linux && (amd64 || arm64)

package transfer

// LoadUCX reports whether the path ucx can be tested.
func LoadUCX() error {
	_, err := loadUCX()
	return err
}

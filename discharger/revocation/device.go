package revocation

import (
	"crypto/sha256"
)

// DeviceTag identifies a device of a user in a store: the first bytes of the SHA-256
// of its name. The zero tag is no device.
type DeviceTag [8]byte

// TagOf returns the tag of a device; zero if the name is empty.
func TagOf(device string) DeviceTag {
	if device == "" {
		return DeviceTag{}
	}
	sum := sha256.Sum256([]byte(device))
	tag := DeviceTag(sum[:8])
	if tag == (DeviceTag{}) {
		tag[0] = 1
	}
	return tag
}

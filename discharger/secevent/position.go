package secevent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/discharger/discharger/discharger/atomicfile"
)

// place is what is kept of a receiver: the position in its homeserver's feed of
// the last event that is behind it. Another audience is another receiver, and
// begins with all that is in the feed.
type place struct {
	Homeserver string `json:"homeserver"`
	Audience   string `json:"audience"`
	Position   string `json:"position"` // "": before the first
}

// positionFile is where a receiver's place is.
func positionFile(dir string, r Receiver) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d\x00%s%s", len(r.Homeserver), r.Homeserver, r.Audience))
	return filepath.Join(dir, "security-events-"+hex.EncodeToString(sum[:8])+".json")
}

// load reads the receiver's position; "" if there never was one.
func (c *courier) load() (string, error) {
	data, err := os.ReadFile(c.file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read position: %w", err)
	}
	var p place
	if err := json.Unmarshal(data, &p); err != nil || p.Homeserver != c.to.Homeserver || p.Audience != c.to.Audience {
		return "", fmt.Errorf("read position: %s is damaged, or not this receiver's; without it, all that is in the feed is sent again", c.file)
	}
	return p.Position, nil
}

// save keeps the receiver's position.
func (c *courier) save(position string) error {
	data, err := json.Marshal(place{c.to.Homeserver, c.to.Audience, position})
	if err == nil {
		data = append(data, '\n')
		err = atomicfile.Replace(c.file, data)
		if errors.Is(err, fs.ErrNotExist) {
			err = atomicfile.Create(c.file, data)
		}
	}
	if err != nil {
		return fmt.Errorf("keep position: %w", err)
	}
	return nil
}

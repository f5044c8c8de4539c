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

// position is the content of a receiver's file: the last event done in its
// homeserver's feed. Another audience is another receiver, which begins with the
// oldest event in the feed.
type position struct {
	Homeserver string `json:"homeserver"`
	Audience   string `json:"audience"`
	Position   string `json:"position"` // "": before the first
}

// positionFile returns the path of a receiver's file.
func positionFile(dir string, r Receiver) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d\x00%s%s", len(r.Homeserver), r.Homeserver, r.Audience))
	return filepath.Join(dir, "security-events-"+hex.EncodeToString(sum[:8])+".json")
}

// loadPosition returns the receiver's position, "" if there is no file.
func (w *worker) loadPosition() (string, error) {
	data, err := os.ReadFile(w.file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read position: %w", err)
	}
	var p position
	if err := json.Unmarshal(data, &p); err != nil || p.Homeserver != w.to.Homeserver || p.Audience != w.to.Audience {
		return "", fmt.Errorf("read position: %s is damaged, or of another receiver; without it, all events in the feed are sent again", w.file)
	}
	return p.Position, nil
}

// savePosition replaces the receiver's position.
func (w *worker) savePosition(at string) error {
	data, err := json.Marshal(position{w.to.Homeserver, w.to.Audience, at})
	if err == nil {
		data = append(data, '\n')
		err = atomicfile.Replace(w.file, data)
		if errors.Is(err, fs.ErrNotExist) {
			err = atomicfile.Create(w.file, data)
		}
	}
	if err != nil {
		return fmt.Errorf("write position: %w", err)
	}
	return nil
}

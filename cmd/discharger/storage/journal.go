package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/discharger/discharger/discharger/store/journal"
)

// maxJournals bounds the processes that share a data directory.
const maxJournals = 64

// openJournal opens the first journal that no process uses: journal.db, or journal-2.db,
// where several processes share a directory. It takes over the entries of the other
// unused journals, whose processes have ended.
func openJournal(ctx context.Context, jc journal.Config) (own *journal.Journal, err error) {
	base, ext := jc.Path, filepath.Ext(jc.Path)
	jc.LockWait = 20 * time.Millisecond
	for i := 1; i <= maxJournals; i++ {
		if i > 1 {
			jc.Path = fmt.Sprintf("%s-%d%s", strings.TrimSuffix(base, ext), i, ext)
			if _, err := os.Stat(jc.Path); own != nil && errors.Is(err, fs.ErrNotExist) {
				break // names are used in order
			}
		}
		var adopted int
		if own == nil {
			own, err = journal.Open(jc)
		} else if adopted, err = own.Adopt(ctx, jc.Path); adopted > 0 {
			jc.Log.LogAttrs(ctx, slog.LevelInfo, "took over journal of another process",
				slog.String("path", jc.Path), slog.Int("entries", adopted))
		}
		if err != nil && !errors.Is(err, journal.ErrInUse) {
			if own != nil {
				err = errors.Join(err, own.Close())
			}
			return nil, err
		}
	}
	if own == nil {
		return nil, fmt.Errorf("open journal: %d processes have one beside %s", maxJournals, base)
	}
	return own, nil
}

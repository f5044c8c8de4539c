package bolt_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/store/storetest"
)

// fullEnv makes this binary a process whose files cannot grow.
const fullEnv = "STORE_TEST_FULL_DISK"

// TestBoltFull has a disk that takes no more writes. Ready reports it, before
// and after a write fails, until a write succeeds.
func TestBoltFull(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fullEnv+"="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// limitFiles bounds how large a file may become by a write: more is an error, as
// of a full disk.
func limitFiles(bytes uint64) error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
		return err
	}
	l.Cur = min(bytes, l.Max)
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l)
}

func fillDisk(dir string) error {
	signal.Ignore(syscall.SIGXFSZ)
	ctx := context.Background()
	for _, tried := range []bool{false, true} {
		b, err := bolt.Open(bolt.Config{Path: filepath.Join(dir, fmt.Sprint(tried))})
		if err != nil {
			return err
		}
		write := func() error {
			_, err := b.Swap(ctx, storetest.One(storetest.NewUser(), store.Change{Session: storetest.NewSession(), New: []byte("a")}))
			return err
		}
		if err := limitFiles(1); err != nil {
			return err
		}
		if tried && write() == nil {
			return errors.New("a write succeeds")
		}
		if b.Ready(ctx) == nil {
			return fmt.Errorf("Ready gives no error, after a write %v", tried)
		}
		if err := limitFiles(1 << 40); err != nil {
			return err
		}
		if err := write(); err != nil {
			return err
		}
		if tried {
			if err := b.Ready(ctx); err != nil {
				return err
			}
		}
		if err := b.Close(); err != nil {
			return err
		}
	}
	return nil
}

package boltfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"syscall"
)

// Check returns an error if a page of a file is damaged, [ErrRoot] if nothing is
// damaged but one of the two roots. A file that does not exist or is empty has no
// damage, and neither has one that bbolt refuses to open.
func Check(path string) error {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 || !info.Mode().IsRegular() {
		return err
	}
	data, err := syscall.Mmap(int(f.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	defer syscall.Munmap(data)
	return guard(func() error { return walkPages(data) })
}

// The layout of a page of bbolt.
const (
	pageHeader = 16 // id(8) flags(2) count(2) overflow(4)
	metaSize   = 64 // magic(4) version(4) pagesize(4) flags(4) root(8) sequence(8) freelist(8) pages(8) commit(8) checksum(8)
	metaMagic  = 0xED0CDAED
	pageBranch = 1
	pageLeaf   = 2
	leafBucket = 1
	elemSize   = 16
)

var order = binary.NativeEndian

type pageWalker struct {
	data []byte
	size uint64
	high uint64 // pages that are in use are below
	seen []bool // by page, as many as the file has
}

func walkPages(data []byte) error {
	size := uint64(os.Getpagesize())
	first, firstOK := readMeta(data, 0)
	if firstOK {
		size = first.pageSize
	}
	second, secondOK := readMeta(data, size)
	if !firstOK && !secondOK {
		return nil // bbolt reports it
	}
	newest := first
	if !firstOK || secondOK && second.commit > first.commit {
		newest = second
	}
	w := pageWalker{data: data, size: newest.pageSize, high: newest.pages, seen: make([]bool, uint64(len(data))/newest.pageSize)}
	if err := w.page(newest.root); err != nil {
		return err
	}
	if !firstOK || !secondOK {
		return ErrRoot
	}
	return nil
}

// ErrRoot is returned for a file of which one root is damaged, and no page below
// the other one. bbolt opens it as it was one commit ago.
var ErrRoot = errors.New("one of the two roots is damaged, the last commit may be missing")

type meta struct{ pageSize, root, pages, commit uint64 }

// readMeta reads a root, and reports whether it is intact.
func readMeta(data []byte, at uint64) (m meta, ok bool) {
	if at+pageHeader+metaSize > uint64(len(data)) {
		return m, false
	}
	b := data[at+pageHeader : at+pageHeader+metaSize]
	h := fnv.New64a()
	h.Write(b[:metaSize-8])
	if order.Uint32(b) != metaMagic || order.Uint64(b[metaSize-8:]) != h.Sum64() {
		return m, false
	}
	m = meta{pageSize: uint64(order.Uint32(b[8:])), root: order.Uint64(b[16:]), pages: order.Uint64(b[40:]), commit: order.Uint64(b[48:])}
	return m, m.pageSize >= 512 && m.pageSize <= 1<<20
}

// page checks a page and all pages below it.
func (w *pageWalker) page(id uint64) error {
	damaged := func() error { return fmt.Errorf("page %d of the file is damaged", id) }
	at := id * w.size
	if id < 2 || id >= min(w.high, uint64(len(w.seen))) || w.seen[id] {
		return damaged()
	}
	overflow := uint64(order.Uint32(w.data[at+12:]))
	end := at + (overflow+1)*w.size
	if order.Uint64(w.data[at:]) != id || id+overflow >= w.high || end > uint64(len(w.data)) {
		return damaged()
	}
	for i := range overflow + 1 {
		if w.seen[id+i] {
			return damaged()
		}
		w.seen[id+i] = true
	}
	if err := w.elements(w.data[at:end]); err != nil {
		if errors.Is(err, errElement) {
			return damaged()
		}
		return err
	}
	return nil
}

var errElement = errors.New("damaged element")

// elements checks the elements of a page, which can be inside the value of a bucket.
func (w *pageWalker) elements(p []byte) error {
	if len(p) < pageHeader {
		return errElement
	}
	flags, count := order.Uint16(p[8:]), uint64(order.Uint16(p[10:]))
	if flags != pageBranch && flags != pageLeaf || pageHeader+count*elemSize > uint64(len(p)) {
		return errElement
	}
	if flags == pageBranch && count == 0 {
		return errElement
	}
	for i := range count {
		at := pageHeader + i*elemSize
		e := p[at : at+elemSize]
		if flags == pageBranch {
			if at+uint64(order.Uint32(e))+uint64(order.Uint32(e[4:])) > uint64(len(p)) {
				return errElement
			}
			if err := w.page(order.Uint64(e[8:])); err != nil {
				return err
			}
			continue
		}
		key := at + uint64(order.Uint32(e[4:]))
		value := key + uint64(order.Uint32(e[8:]))
		end := value + uint64(order.Uint32(e[12:]))
		if end > uint64(len(p)) {
			return errElement
		}
		if order.Uint32(e)&leafBucket != 0 {
			if err := w.bucket(p[value:end]); err != nil {
				return err
			}
		}
	}
	return nil
}

// bucket checks the value of a bucket: root(8) sequence(8), and its only page if
// root is 0.
func (w *pageWalker) bucket(v []byte) error {
	if len(v) < 16 {
		return errElement
	}
	if root := order.Uint64(v); root != 0 {
		return w.page(root)
	}
	return w.elements(v[16:])
}

package discharger

import (
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
)

// A client that logs out twice may never have received an answer to the first
// request: the write took effect, and what it had to wait for did not come about.
// So the second request must not be answered because of what the store shows; it
// makes the write again, which changes nothing, and waits for the same. A store
// that journals revocations has this process journal it, too.

// repeat returns the write that makes a revocation again which was found in the
// store. A homeserver's revocation needs none: it is raised anew every time.
func (s *Service) repeat(a *attempt, st session.State, v store.View) (ed edit, err error) {
	switch r := st.Session; {
	case r != nil && r.Over():
		err = s.repeatSession(&ed, a, stored{id: a.cond.Session, raw: v.Session, record: *r})
	case v.User != nil && (r == nil && a.cond.Minted <= st.User.At || r != nil && r.UserGeneration < st.User.Generation):
		err = s.changeUser(&ed, a.user, v, &st.User)
	}
	ed.revoked = s.again(a, st)
	return ed, err
}

// repeatSession adds to an edit what makes a tombstone again.
func (s *Service) repeatSession(ed *edit, a *attempt, o stored) error {
	minted := a.cond.Minted
	if o.id != a.cond.Session || minted == 0 {
		minted = o.record.End.At
	}
	return s.changeSession(ed, a, o.id, o.raw, &o.record, minted)
}

// repeatAll makes an edit of what makes tombstones again that were found with
// others.
func (s *Service) repeatAll(ed *edit, a *attempt, gone []stored) error {
	for _, o := range gone {
		if err := s.repeatSession(ed, a, o); err != nil {
			return err
		}
	}
	ed.revoked = s.remains(a, gone)
	return nil
}

package store

// Losses are the times, in Unix ms by the store's clock, from which on the
// store's data is complete; 0: nothing was lost. A store from before losses
// were recorded has lost nothing.
type Losses struct {
	// Missing is when the store was made, or an operator last accepted that
	// it had lost its data. Sessions that were minted before and have no
	// record may have been revoked. A View need have it only where there is no
	// record of the session.
	Missing int64

	// All is when an operator last accepted data that may lack revocations.
	// Sessions that were activated before it may have been revoked.
	All int64
}

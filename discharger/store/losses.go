package store

// Losses are the times, Unix ms by the store's clock, from which the store's data is
// complete; 0: no loss. Stores of versions that did not record losses have none.
type Losses struct {
	// Missing is when the store was created, or an operator last accepted the loss of
	// its data. A session minted before, without a record, may have been revoked. Only
	// a View without a record of the session must have it.
	Missing int64

	// All is when an operator last accepted data that may lack revocations.
	// Sessions that were activated before it may have been revoked.
	All int64
}

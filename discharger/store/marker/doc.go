// Package marker keeps the identity of a store outside the store.
package marker

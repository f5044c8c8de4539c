// Package limits checks what a store is given.
package limits

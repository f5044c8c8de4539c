// Package limits checks the arguments of stores.
package limits

// Package storetest is the conformance suite of stores, and what their tests share.
package storetest

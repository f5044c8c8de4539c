// Package storetest is the conformance suite of stores, and the helpers of their tests.
package storetest

//go:build interop

package interop

import "testing"

// testJavaScript uses the library macaroon. It makes no requests itself: requests and
// errors are the script's.
func testJavaScript(t *testing.T, w *world) {
	w.client(t, "javascript", func(t *testing.T, task any) []step { return w.kit.node(t, "client.cjs", task) }, "refused")
}

// testJavaScriptTarget uses macaroon-bakery alone. It supports V1 caveats only. A
// refusal must reach its callback: it never returns from an answer that is neither
// success nor refusal.
func testJavaScriptTarget(t *testing.T, w *world) {
	w.target(t, "javascript", func(t *testing.T, task any) []step { return w.kit.node(t, "target.cjs", task) }, "callback")
}

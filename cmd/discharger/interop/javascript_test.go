//go:build interop

package interop

import "testing"

// testJavaScript has macaroon do what is done with macaroons. It makes no
// requests itself, so the script does, and the error is the script's too.
func testJavaScript(t *testing.T, w *world) {
	w.client(t, "javascript", func(t *testing.T, task any) []step { return w.kit.node(t, "client.cjs", task) }, "refused")
}

// testJavaScriptTarget has macaroon-bakery do everything. It knows V1 caveats
// only, and it must be told of a refusal by its callback: from an answer that
// it takes for neither success nor refusal it never returns.
func testJavaScriptTarget(t *testing.T, w *world) {
	w.target(t, "javascript", func(t *testing.T, task any) []step { return w.kit.node(t, "target.cjs", task) }, "callback")
}

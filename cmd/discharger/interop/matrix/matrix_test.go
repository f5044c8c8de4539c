package matrix

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestMatrix runs all tests before each homeserver on one gateway, concurrently, and
// then looks for secrets in answers, logs and metrics.
func TestMatrix(t *testing.T) {
	k := assemble(t)
	k.installClients(t)
	before(t, k, func(t *testing.T, h *homeserver) { testMatrix(t, k, h) })
}

func testMatrix(t *testing.T, k *kit, h *homeserver) {
	g := startGateway(t, k, h)
	tests := map[string]func(*testing.T){
		"versions":          g.testVersions,
		"unaware client":    g.testUnaware,
		"refresh":           g.testRefresh,
		"register":          g.testRegister,
		"refresh by many":   g.testRefreshByMany,
		"two devices":       g.testTwoDevices,
		"same device":       g.testSameDevice,
		"logout":            g.testLogout,
		"logout everywhere": g.testLogoutAll,
		"device deleted":    g.testDeleteDevice,
		"devices deleted":   g.testDeleteDevices,
		"password":          g.testPassword,
		"deactivation":      g.testDeactivate,
		"interactive":       g.testInteractive,
		"device names":      g.testDeviceNames,
		"killed upstream":   g.testKilledUpstream,
		"old token":         g.testOldToken,
		"wrong tokens":      g.testWrongTokens,
		"openid":            g.testOpenID,
		"media":             g.testMedia,
		"mautrix":           g.testMautrix,
		"mautrix, refresh":  g.testMautrixRefresh,
		"js-sdk":            func(t *testing.T) { g.testJS(t, k, false) },
		"js-sdk, refresh":   func(t *testing.T) { g.testJS(t, k, true) },
	}
	t.Run("all", func(t *testing.T) {
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t)
			})
		}
		t.Run("apart", func(t *testing.T) {
			t.Parallel()
			testApart(t, k, h)
		})
	})
	t.Run("secrets", func(t *testing.T) { g.testSecrets(t, h.everyToken(t)) })
}

// testSecrets looks for the homeserver's tokens in all answers, logs and metrics.
func (g *gateway) testSecrets(t *testing.T, tokens []string) {
	if len(tokens) < 5 {
		t.Fatalf("only %d tokens to look for", len(tokens))
	}
	resp, err := http.Get(g.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	metrics, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"answers": g.said.String(), "log": g.out.String(), "metrics": string(metrics)} {
		if len(text) < 1000 {
			t.Errorf("%s: only %q", name, text)
		}
		for _, token := range tokens {
			if strings.Contains(text, token) {
				t.Errorf("%s: there is a token of the homeserver's", name)
			}
		}
	}
}

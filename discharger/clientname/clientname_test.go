package clientname_test

import (
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/discharger/discharger/discharger/clientname"
)

const webKit = " AppleWebKit/537.36 (KHTML, like Gecko) "

// clients are the User-Agents of clients before and after an update, and their
// names. A changed name makes its client another one for sessions that are there.
var clients = []struct{ name, before, after string }{
	{"Firefox on Linux", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0.1"},
	{"Firefox on Linux", "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/115.0", ""},
	{"Firefox on Windows", "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:128.0) Gecko/20100101 Firefox/128.0", "Mozilla/5.0 (Windows NT 11.0; Win64; x64; rv:141.0) Gecko/20100101 Firefox/141.0"},
	{"Firefox on macOS", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:128.0) Gecko/20100101 Firefox/128.0", "Mozilla/5.0 (Macintosh; Intel Mac OS X 14.1; rv:129.0) Gecko/20100101 Firefox/129.0"},
	{"Firefox on Android", "Mozilla/5.0 (Android 13; Mobile; rv:128.0) Gecko/128.0 Firefox/128.0", "Mozilla/5.0 (Android 14; Mobile; rv:129.0) Gecko/129.0 Firefox/129.0"},
	{"Firefox on iOS, iPhone", "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) FxiOS/128.0 Mobile/15E148 Safari/605.1.15", ""},
	{"Chrome on Windows", "Mozilla/5.0 (Windows NT 10.0; Win64; x64)" + webKit + "Chrome/126.0.0.0 Safari/537.36", "Mozilla/5.0 (Windows NT 10.0; Win64; x64)" + webKit + "Chrome/138.0.0.0 Safari/537.36"},
	{"Chrome on Linux", "Mozilla/5.0 (X11; Linux x86_64)" + webKit + "Chrome/126.0.0.0 Safari/537.36", ""},
	{"Chrome on ChromeOS", "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0)" + webKit + "Chrome/126.0.0.0 Safari/537.36", ""},
	{"Chrome on Android", "Mozilla/5.0 (Linux; Android 10; K)" + webKit + "Chrome/126.0.0.0 Mobile Safari/537.36", "Mozilla/5.0 (Linux; Android 10; K)" + webKit + "Chrome/138.0.0.0 Mobile Safari/537.36"},
	{"Chrome on Android, SM-S901B", "Mozilla/5.0 (Linux; Android 13; SM-S901B)" + webKit + "Chrome/112.0.0.0 Mobile Safari/537.36", "Mozilla/5.0 (Linux; Android 14; SM-S901B)" + webKit + "Chrome/113.0.1.0 Mobile Safari/537.36"},
	{"Chrome on Android, Pixel 7", "Mozilla/5.0 (Linux; Android 14; Pixel 7 Build/UQ1A.240105.004; wv)" + webKit + "Version/4.0 Chrome/120.0.6099.144 Mobile Safari/537.36", "Mozilla/5.0 (Linux; Android 15; Pixel 7 Build/AP3A.241005.015; wv)" + webKit + "Version/4.0 Chrome/130.0.6723.58 Mobile Safari/537.36"},
	{"Edge on Windows", "Mozilla/5.0 (Windows NT 10.0; Win64; x64)" + webKit + "Chrome/126.0.0.0 Safari/537.36 Edg/126.0.0.0", ""},
	{"Safari on macOS", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0.1 Safari/605.1.15"},
	{"Safari on iOS, iPhone", "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1", "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1.1 Mobile/15E148 Safari/604.1"},
	{"Safari on iOS, iPad", "Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/16.6 Mobile/15E148 Safari/604.1", ""},

	{"Element on Windows", "Mozilla/5.0 (Windows NT 10.0; Win64; x64)" + webKit + "Element/1.11.69 Chrome/124.0.6367.243 Electron/30.1.0 Safari/537.36", "Mozilla/5.0 (Windows NT 10.0; Win64; x64)" + webKit + "Element/1.11.104 Chrome/136.0.0.0 Electron/36.3.1 Safari/537.36"},
	{"Element on Linux", "Mozilla/5.0 (X11; Linux x86_64)" + webKit + "Element/1.11.69 Chrome/124.0.6367.243 Electron/30.1.0 Safari/537.36", ""},
	{"Element on macOS", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)" + webKit + "Element/1.11.69 Chrome/124.0.6367.243 Electron/30.1.0 Safari/537.36", ""},
	{"Element on Android, Google Pixel 7", "Element/1.6.18 (Google Pixel 7; Android 14; UQ1A.240105.004; Flavour GooglePlay; MatrixAndroidSdk2 1.6.18)", "Element/1.6.22 (Google Pixel 7; Android 15; AP3A.241005.015; Flavour GooglePlay; MatrixAndroidSdk2 1.6.22)"},
	{"Element X on Android, Google Pixel 7 Pro", "Element X/25.05.3 (Google Pixel 7 Pro; Android 14; UQ1A.240105.004; Sdk d5f3d01)", "Element X/25.07.0 (Google Pixel 7 Pro; Android 15; AP3A.241005.015; Sdk 4a0a1c3)"},
	{"Element X on iOS, iPhone 13 Pro", "Element X/25.05.1 (iPhone 13 Pro; iOS 17.5; Scale/3.00)", "Element X/25.06.3 (iPhone 13 Pro; iOS 18.0.1; Scale/3.00)"},
	{"Element on iOS, iPhone 12", "Element/1.11.10 (iPhone 12; iOS 17.1; Scale/3.00)", "Element/1.11.20 (iPhone 12; iOS 17.4.1; Scale/3.00)"},
	{"Element on Linux", "Element/1.11.80 (Linux; bench)", ""},
	{"SchildiChat on Android, Fairphone FP4", "SchildiChat/1.6.5.sc70 (Fairphone FP4; Android 13; FP4.TP1Y.A.0137; Flavour GooglePlay; MatrixAndroidSdk2 1.6.5.sc70)", ""},
	{"FluffyChat", "FluffyChat/1.14.1", "FluffyChat/2.0.0"},
	{"nheko", "nheko/0.11.3", "nheko/0.12.0"},
	{"Nio on Apple", "Nio/12 CFNetwork/1410.0.3 Darwin/22.6.0", "Nio/13 CFNetwork/1494.0.7 Darwin/23.4.0"},
	{"matrix-js-sdk", "matrix-js-sdk", ""},
	{"matrix-nio", "matrix-nio/0.24.0", "matrix-nio/0.25.2"},
	{"mautrix-go", "mautrix-go/0.18.0 go/1.22.1", "mautrix-go/0.25.1 go/1.25.0"},
	{"mautrix-whatsapp", "mautrix-whatsapp/0.10.9+dev.8f3d mautrix-go/0.18.0 go/1.22.1", ""},
	{"matrix-rust-sdk", "matrix-rust-sdk", ""},
	{"Dart", "Dart/3.4 (dart:io)", "Dart/3.8 (dart:io)"},
	{"Go-http-client", "Go-http-client/1.1", "Go-http-client/2.0"},
	{"okhttp", "okhttp/4.12.0", "okhttp/5.0.0"},
	{"curl", "curl/8.5.0", "curl/8.14.1"},
	{"python-requests", "python-requests/2.31.0", ""},
	{"discharger-gateway", "discharger-gateway", ""},
	{"Some Client", "Some  Client 1.2", ""},
}

func TestOf(t *testing.T) {
	t.Parallel()
	for _, c := range clients {
		for _, ua := range []string{c.before, c.after} {
			if ua == "" {
				continue
			}
			t.Run(ua, func(t *testing.T) {
				t.Parallel()
				if got := clientname.Of(ua); got != c.name {
					t.Errorf("named %q, want %q", got, c.name)
				}
			})
		}
	}
	for ua, want := range map[string]string{
		"": "", " ": "", "/": "", "(": "", "1.2": "1.2", "\x00\x1b[2Jx\u202ey\n z": "[2Jxy z",
		"Mozilla/5.0":                              "Browser",
		"Mozilla/5.0 (Linux; Android 14":           "Browser on Android",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64": "Browser on Windows",
		"Mozilla/4.0 (compatible; MSIE 6.0)":       "Internet Explorer",
		"x/1 (https://example.org; a/b; Android)":  "x on Android",
		strings.Repeat("é", 30):                    strings.Repeat("é", 20),
	} {
		if got := clientname.Of(ua); got != want {
			t.Errorf("%q is named %q, want %q", ua, got, want)
		}
	}
}

// TestWas compares names stored by earlier versions with present User-Agents,
// before and after its update; and names with other clients.
func TestWas(t *testing.T) {
	t.Parallel()
	for _, c := range clients {
		was := clientname.Cut(c.before, clientname.Max)
		if !clientname.Was(was, c.before) {
			t.Errorf("%q is not %q", was, c.before)
		}
		if c.after != "" && !clientname.Was(was, c.after) {
			t.Errorf("%q is not %q after an update", was, c.after)
		}
		for _, other := range clients {
			if other.name == c.name {
				continue
			}
			if clientname.Was(c.name, other.before) {
				t.Errorf("%q is %q", c.name, other.before)
			}
		}
	}
	for stored, ua := range map[string]string{
		"curl/8.5.0":    "curl/8.5.0 (x)",
		"curl":          "wget/1",
		"Some Client 1": "Some Client 2",
		"Element/1.2.3": "Element X/1.2.3",
		"":              "x",
		"x":             "",
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebK": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
	} {
		if clientname.Was(stored, ua) {
			t.Errorf("%q is %q", stored, ua)
		}
	}
	if !clientname.Was("", "") {
		t.Error("no name is not no name")
	}
}

func TestStored(t *testing.T) {
	t.Parallel()
	for stored, want := range map[string]string{
		"Firefox on Linux": "Firefox on Linux",
		"":                 "",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64":  "Browser on Windows",
		"Element/1.6.18 (Google Pixel 7; Android 1": "Element on Android, Google Pixel 7",
	} {
		if got := clientname.Stored(stored); got != want {
			t.Errorf("%q: %q, want %q", stored, got, want)
		}
	}
}

func TestCache(t *testing.T) {
	t.Parallel()
	var c clientname.Cache
	for range 2 {
		for n := range 2000 {
			ua := fmt.Sprintf("client%d/1.0", n)
			if got := c.Of(ua); got != clientname.Of(ua) {
				t.Fatalf("%q: %q", ua, got)
			}
		}
	}
	long := "x/1 (" + strings.Repeat("a", 1<<16)
	if got := c.Of(long); got != "x" {
		t.Errorf("got %q", got)
	}
}

// FuzzOf looks for names that are too long, not printable, or taken for a
// User-Agent; and for a client that is not itself.
func FuzzOf(f *testing.F) {
	for _, c := range clients {
		f.Add(c.before)
	}
	f.Fuzz(func(t *testing.T, ua string) {
		name := clientname.Of(ua)
		if len(name) > clientname.Max || !utf8.ValidString(name) || strings.Contains(name, "/") || strings.TrimSpace(name) != name {
			t.Fatalf("%q is named %q", ua, name)
		}
		for _, r := range name {
			if !unicode.IsPrint(r) {
				t.Fatalf("%q is named %q", ua, name)
			}
		}
		was := clientname.Cut(strings.ToValidUTF8(ua, "\uFFFD"), clientname.Max)
		if !clientname.Was(was, ua) {
			t.Fatalf("%q was not %q", ua, was)
		}
		if clientname.Stored(name) != name {
			t.Fatalf("%q: %q", ua, clientname.Stored(name))
		}
	})
}

func BenchmarkOf(b *testing.B) {
	ua := clients[0].before
	for b.Loop() {
		clientname.Of(ua)
	}
}

func BenchmarkCache(b *testing.B) {
	var c clientname.Cache
	for b.Loop() {
		c.Of(clients[0].before)
	}
}

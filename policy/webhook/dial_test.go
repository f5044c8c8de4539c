package webhook

import (
	"net/netip"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/secret"
)

func TestDialable(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]bool{
		"93.184.215.14":          true,
		"2606:4700:4700::1111":   true,
		"::ffff:93.184.215.14":   true,
		"127.0.0.1":              false,
		"127.9.9.9":              false,
		"::1":                    false,
		"::ffff:127.0.0.1":       false,
		"::127.0.0.1":            false,
		"0.0.0.0":                false,
		"0.1.2.3":                false,
		"::":                     false,
		"10.1.2.3":               false,
		"172.16.0.1":             false,
		"172.31.255.255":         false,
		"172.32.0.1":             true,
		"192.168.1.1":            false,
		"::ffff:192.168.1.1":     false,
		"100.64.0.1":             false,
		"100.100.100.200":        false,
		"168.63.129.16":          false,
		"169.254.169.254":        false,
		"::ffff:169.254.169.254": false,
		"fd00:ec2::254":          false,
		"fe80::1":                false,
		"fe80::1%eth0":           false,
		"fec0::1":                false,
		"fc00::1":                false,
		"224.0.0.1":              false,
		"239.255.255.250":        false,
		"ff02::1":                false,
		"255.255.255.255":        false,
		"240.0.0.1":              false,
		"198.18.0.1":             false,
		"192.0.2.1":              false,
		"64:ff9b::7f00:1":        false,
		"64:ff9b:1::a00:1":       false,
		"2002:7f00:1::":          false,
		"2001::1":                false,
		"2001:db8::1":            false,
		"100::1":                 false,
	} {
		t.Run(addr, func(t *testing.T) {
			if got := dialable(netip.MustParseAddr(addr), nil, true); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
			if dialable(netip.MustParseAddr(addr), nil, false) {
				t.Error("allowed without a list")
			}
		})
	}
	allow := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for addr, want := range map[string]bool{"10.1.2.3": true, "::ffff:10.1.2.3": true, "fd00::1": true, "11.0.0.1": false, "127.0.0.1": false, "fc00::1": false} {
		t.Run("listed/"+addr, func(t *testing.T) {
			if got := dialable(netip.MustParseAddr(addr), allow, false); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestDialerRefusesOtherNetworks(t *testing.T) {
	t.Parallel()
	control := newDialer(nil, true, 5*time.Second).ControlContext
	for network, address := range map[string]string{"unix": "/run/x.sock", "udp4": "93.184.215.14:443", "tcp4": "93.184.215.14", "tcp": "93.184.215.14:443"} {
		t.Run(network+" "+address, func(t *testing.T) {
			if control(t.Context(), network, address, nil) == nil {
				t.Error("allowed")
			}
		})
	}
	if err := control(t.Context(), "tcp4", "93.184.215.14:443", nil); err != nil {
		t.Error(err)
	}
}

func TestKeyIsRedacted(t *testing.T) {
	t.Parallel()
	s := secret.Bytes("hunter2")
	out, err := s.MarshalJSON()
	for _, shown := range []string{s.String(), s.GoString(), s.LogValue().String(), string(out[1 : len(out)-1])} {
		if shown != secret.Redacted || err != nil {
			t.Errorf("got %q, %v", shown, err)
		}
	}
}

package command

import (
	"flag"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestParseAnywhere(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args string
		want string
	}{
		{"a b", "[a b] false"},
		{"-x a b", "[a b] true"},
		{"a -x b", "[a b] true"},
		{"a b --x", "[a b] true"},
		{"a -- -x", "[a -x] false"},
		{"-- -x b", "[-x b] false"},
		{"-x -- -- a", "[-- a] true"},
		{"- -x", "[-] true"},
		{"a -wKJrhbOxcMokoUOnazjSA -x", "[a -wKJrhbOxcMokoUOnazjSA] true"},
		{"-IH83udFeNz6qSEpluh-4E_XwQDjyS499oGM8QGPNQE -x", "[-IH83udFeNz6qSEpluh-4E_XwQDjyS499oGM8QGPNQE] true"},
		{"--KJrhbOxcMokoUOnazjSA b", "[--KJrhbOxcMokoUOnazjSA b] false"},
		{"", "[] false"},
	} {
		f := flag.NewFlagSet("", flag.ContinueOnError)
		f.SetOutput(io.Discard)
		x := f.Bool("x", false, "")
		positional, err := Parse(f, strings.Fields(tt.args))
		if got := fmt.Sprint(positional, " ", *x); got != tt.want || err != nil {
			t.Errorf("%q gave %s, %v; want %s", tt.args, got, err, tt.want)
		}
	}
}

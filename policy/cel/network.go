package cel

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/ext"

	"github.com/discharger/discharger/config/yamlfile"
)

// networkSet is a CEL value: a set of addresses in
// sorted disjoint ranges, so that a lookup takes a binary
// search.
type networkSet struct {
	ranges []addrRange
	text   []string
}

type addrRange struct{ first, last netip.Addr }

// networksType is opaque: the only operation is the test for an address. It is not a list of
// strings, because addresses would be compared with networks as text.
var networksType = types.NewOpaqueType("net.Networks")

// newNetworkSet returns a set of prefixes of ParsePrefix.
func newNetworkSet(prefixes []netip.Prefix) *networkSet {
	set := &networkSet{}
	all := make([]addrRange, 0, len(prefixes))
	for _, p := range prefixes {
		set.text = append(set.text, p.String())
		all = append(all, addrRange{p.Addr(), lastAddr(p)})
	}
	slices.SortFunc(all, func(a, b addrRange) int { return a.first.Compare(b.first) })
	for _, r := range all {
		if n := len(set.ranges); n > 0 && r.first.Compare(set.ranges[n-1].last) <= 0 {
			if r.last.Compare(set.ranges[n-1].last) > 0 {
				set.ranges[n-1].last = r.last
			}
			continue
		}
		set.ranges = append(set.ranges, r)
	}
	return set
}

// lastAddr returns the highest address of a network.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b) // 4 or 16 bytes
	return a
}

func (s *networkSet) contains(a netip.Addr) bool {
	i, found := slices.BinarySearchFunc(s.ranges, a, func(r addrRange, a netip.Addr) int { return r.first.Compare(a) })
	if found {
		return true
	}
	return i > 0 && a.Compare(s.ranges[i-1].last) <= 0
}

func (s *networkSet) ConvertToNative(reflect.Type) (any, error) {
	return nil, errors.New("a set of networks has no native value")
}

func (s *networkSet) ConvertToType(t ref.Type) ref.Val {
	return types.NewErr("a set of networks cannot become a %s", t.TypeName())
}

// Equal returns an error: the comparison of long lists has no cost, and rules do not need it.
func (s *networkSet) Equal(ref.Val) ref.Val {
	return types.NewErr("sets of networks cannot be compared")
}

func (s *networkSet) Type() ref.Type { return networksType }

func (s *networkSet) Value() any { return s.text }

// errUnknownAddr is the error of a test of an unknown address. No default is safe: some rules
// allow the addresses of a network, others deny them.
var errUnknownAddr = errors.New("IP address is unknown; test has(request.ip) first")

// addrOf returns the address in a string or an ip value.
func addrOf(v ref.Val) (netip.Addr, error) {
	var a netip.Addr
	switch v := v.(type) {
	case ext.IP:
		a = v.Addr
	case types.String:
		if v == "" {
			return a, errUnknownAddr
		}
		var err error
		if a, err = netip.ParseAddr(string(v)); err != nil {
			return a, fmt.Errorf("IP address %.60q is invalid", string(v))
		}
	default:
		return a, fmt.Errorf("IP address: want a string or an ip, got %s", v.Type().TypeName())
	}
	return a.Unmap().WithZone(""), nil
}

// in implements the operator "in" for lists, maps and networks.
func in(element, container ref.Val) ref.Val {
	switch c := container.(type) {
	case *networkSet:
		a, err := addrOf(element)
		if err != nil {
			return types.WrapErr(err)
		}
		return types.Bool(c.contains(a))
	case ext.CIDR:
		a, err := addrOf(element)
		if err != nil {
			return types.WrapErr(err)
		}
		return types.Bool(c.Contains(a))
	case traits.Container:
		return c.Contains(element)
	}
	return types.MaybeNoSuchOverloadErr(container)
}

// cidrs implements the function cidrs: the networks in a string, for instance a label,
// separated by spaces or commas.
func cidrs(v ref.Val) ref.Val {
	s, ok := v.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(v)
	}
	var prefixes []netip.Prefix
	for _, word := range strings.FieldsFunc(string(s), func(r rune) bool { return r == ' ' || r == ',' }) {
		p, err := yamlfile.ParsePrefix(word)
		if err != nil {
			return types.WrapErr(err)
		}
		prefixes = append(prefixes, p)
	}
	return newNetworkSet(prefixes)
}

// sameNetwork implements the function sameNetwork(a, b, bits4, bits6). It is false for
// addresses of different families.
func sameNetwork(args ...ref.Val) ref.Val {
	var addrs [2]netip.Addr
	for i := range addrs {
		var err error
		if addrs[i], err = addrOf(args[i]); err != nil {
			return types.WrapErr(err)
		}
	}
	bits, ok := args[3].(types.Int)
	if addrs[0].Is4() {
		bits, ok = args[2].(types.Int)
	}
	if !ok || bits < 0 || int(bits) > addrs[0].BitLen() {
		return types.NewErr("%v bits are out of range for %s", bits, addrs[0])
	}
	p, err := addrs[0].Prefix(int(bits))
	if err != nil {
		return types.WrapErr(err)
	}
	return types.Bool(p.Contains(addrs[1]))
}

// networkFunctions returns the declarations of the functions on addresses, with those of
// Kubernetes.
func networkFunctions() []cel.EnvOption {
	elem, key := cel.TypeParamType("A"), cel.TypeParamType("B")
	yes := cel.BoolType
	return []cel.EnvOption{
		ext.Network(),
		cel.Types(networksType),
		cel.Function(operators.In,
			cel.Overload(overloads.InList, []*cel.Type{elem, cel.ListType(elem)}, yes),
			cel.Overload(overloads.InMap, []*cel.Type{elem, cel.MapType(elem, key)}, yes),
			cel.Overload("string_in_networks", []*cel.Type{cel.StringType, networksType}, yes),
			cel.Overload("ip_in_networks", []*cel.Type{ext.IPType, networksType}, yes),
			cel.Overload("string_in_cidr", []*cel.Type{cel.StringType, ext.CIDRType}, yes),
			cel.Overload("ip_in_cidr", []*cel.Type{ext.IPType, ext.CIDRType}, yes),
			cel.SingletonBinaryBinding(in)),
		cel.Function("containsIP",
			cel.MemberOverload("networks_contains_ip_string", []*cel.Type{networksType, cel.StringType}, yes,
				cel.BinaryBinding(func(set, addr ref.Val) ref.Val { return in(addr, set) })),
			cel.MemberOverload("networks_contains_ip_ip", []*cel.Type{networksType, ext.IPType}, yes,
				cel.BinaryBinding(func(set, addr ref.Val) ref.Val { return in(addr, set) }))),
		cel.Function("cidrs",
			cel.Overload("string_to_networks", []*cel.Type{cel.StringType}, networksType, cel.UnaryBinding(cidrs))),
		cel.Function("sameNetwork",
			cel.Overload("same_network", []*cel.Type{cel.StringType, cel.StringType, cel.IntType, cel.IntType}, yes,
				cel.FunctionBinding(sameNetwork))),
	}
}

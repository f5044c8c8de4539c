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

// networkSet is a CEL value: a set of addresses in sorted disjoint networks, so that a
// lookup takes a binary search.
type networkSet []netip.Prefix

// networksType is opaque: the only operation is the test for an address. It is not a list of
// strings, because addresses would be compared with networks as text.
var networksType = types.NewOpaqueType("net.Networks")

// newNetworkSet returns a set of prefixes of ParsePrefix.
func newNetworkSet(prefixes []netip.Prefix) *networkSet {
	var set networkSet
	for _, p := range slices.SortedFunc(slices.Values(prefixes), netip.Prefix.Compare) {
		// A network follows those that contain it.
		if n := len(set); n == 0 || !set[n-1].Overlaps(p) {
			set = append(set, p)
		}
	}
	return &set
}

// Contains reports whether an address is in one of the networks.
func (s networkSet) Contains(a netip.Addr) bool {
	i, found := slices.BinarySearchFunc(s, a, func(p netip.Prefix, a netip.Addr) int { return p.Addr().Compare(a) })
	return found || i > 0 && s[i-1].Contains(a)
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

func (s *networkSet) Value() any { return *s }

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
	case interface{ Contains(netip.Addr) bool }: // a *networkSet or an ext.CIDR
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
	containsIP := cel.BinaryBinding(func(set, addr ref.Val) ref.Val { return in(addr, set) })
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
			cel.MemberOverload("networks_contains_ip_string", []*cel.Type{networksType, cel.StringType}, yes, containsIP),
			cel.MemberOverload("networks_contains_ip_ip", []*cel.Type{networksType, ext.IPType}, yes, containsIP)),
		cel.Function("cidrs",
			cel.Overload("string_to_networks", []*cel.Type{cel.StringType}, networksType, cel.UnaryBinding(cidrs))),
		cel.Function("sameNetwork",
			cel.Overload("same_network", []*cel.Type{cel.StringType, cel.StringType, cel.IntType, cel.IntType}, yes,
				cel.FunctionBinding(sameNetwork))),
	}
}

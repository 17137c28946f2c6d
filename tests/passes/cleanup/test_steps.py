"""Each clean-up step: one model on which it acts, and the twin on which it must not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from irtools.passmanager import PassResult

Run = Callable[[str, str], tuple[str, PassResult]]

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'

CASES = {
    "identity is bypassed": (
        "remove-identity",
        """g (float[N] x) => (float[N] y) { a = Identity(x)  y = Relu(a) }""",
        "y = Relu(x)",
    ),
    "identity that gives an output its name lends it to the producer": (
        "remove-identity",
        """g (float[N] x) => (float[N] y) { a = Relu(x)  y = Identity(a) }""",
        "y = Relu(x)",
    ),
    "identity from an input to an output stays": (
        "remove-identity",
        """g (float[N] x) => (float[N] y) { y = Identity(x) }""",
        "y = Identity(x)",
    ),
    "identity between two outputs stays": (
        "remove-identity",
        """g (float[N] x) => (float[N] y, float[N] z) { y = Relu(x)  z = Identity(y) }""",
        "y = Relu(x)\nz = Identity(y)",
    ),
    "dropout that does not train is bypassed": (
        "remove-identity",
        """g (float[N] x) => (float[N] y) { a = Dropout(x)  y = Relu(a) }""",
        "y = Relu(x)",
    ),
    "dropout whose mask is read stays": (
        "remove-identity",
        """g (float[N] x) => (float[N] y, bool[N] m) { a, m = Dropout(x)  y = Relu(a) }""",
        "a, m = Dropout(x)\ny = Relu(a)",
    ),
    "dropout that may train stays": (
        "remove-identity",
        """g (float[N] x, bool t) => (float[N] y) <float r = {0.5}>
        { a = Dropout(x, r, t)  y = Relu(a) }""",
        "r: float32[] = 0.5\na = Dropout(x, r, t)\ny = Relu(a)",
    ),
    "cast to the type it has is not a cast": (
        "remove-no-ops",
        """g (float[N] x) => (float[N] y) { a = Cast<to=1>(x)  y = Relu(a) }""",
        "y = Relu(x)",
    ),
    "cast to the type of another tensor of the same type is not a cast": (
        "remove-no-ops",
        """g (float[N] x, float[M] z) => (float[N] y) { a = CastLike(x, z)  y = Relu(a) }""",
        "y = Relu(x)",
    ),
    "cast to the type of a tensor of another type stays": (
        "remove-no-ops",
        """g (float[N] x, double[M] z) => (double[N] y) { a = CastLike(x, z)  y = Relu(a) }""",
        "a = CastLike(x, z)\ny = Relu(a)",
    ),
    "cast to another type stays": (
        "remove-no-ops",
        """g (float[N] x) => (double[N] y) { a = Cast<to=11>(x)  y = Relu(a) }""",
        "a = Cast<to=11>(x)\ny = Relu(a)",
    ),
    "times one is dropped": (
        "remove-no-ops",
        """g (float[N] x) => (float[N] y) <float one = {1.0}> { a = Mul(one, x)  y = Relu(a) }""",
        "one: float32[] = 1.0\ny = Relu(x)",
    ),
    "times one that widens the shape stays": (
        "remove-no-ops",
        """g (float[N] x) => (float[1,N] y) <float[1,1] one = {1.0}>
        { a = Mul(one, x)  y = Relu(a) }""",
        "one: float32[1, 1] = [1.0]\na = Mul(one, x)\ny = Relu(a)",
    ),
    "plus zero stays, because it turns -0.0 into 0.0": (
        "remove-no-ops",
        """g (float[N] x) => (float[N] y) <float zero = {0.0}> { a = Add(x, zero)  y = Relu(a) }""",
        "zero: float32[] = 0.0\na = Add(x, zero)\ny = Relu(a)",
    ),
    "minus zero is dropped": (
        "remove-no-ops",
        """g (float[N] x) => (float[N] y) <float zero = {0.0}> { a = Sub(x, zero)  y = Relu(a) }""",
        "zero: float32[] = 0.0\ny = Relu(x)",
    ),
    "minus negative zero stays, because it turns -0.0 into 0.0": (
        "remove-no-ops",
        """g (float[N] x) => (float[N] y) <float zero = {-0.0}>
        { a = Sub(x, zero)  y = Relu(a) }""",
        "zero: float32[] = -0.0\na = Sub(x, zero)\ny = Relu(a)",
    ),
    "reshape to the shape it has, computed from it": (
        "remove-no-ops",
        """g (float[B,S,8] x) => (float[B,S,8] y)
        { s = Shape(x)  a = Reshape(x, s)  y = Relu(a) }""",
        "s = Shape(x)\ny = Relu(x)",
    ),
    "reshape to another order of sizes stays": (
        "remove-no-ops",
        """g (float[B,S] x, float[S,B] z) => (float[S,B] y)
        { s = Shape(z)  a = Reshape(x, s)  y = Relu(a) }""",
        "s = Shape(z)\na = Reshape(x, s)\ny = Relu(a)",
    ),
    "two unnamed sizes are not one size": (
        "remove-no-ops",
        """g (float[?] x, float[?] z) => (float[?] y)
        { s = Shape(z)  a = Expand(x, s)  y = Relu(a) }""",
        "s = Shape(z)\na = Expand(x, s)\ny = Relu(a)",
    ),
    "a concatenation of one is dropped": (
        "remove-no-ops",
        """g (float[N] x) => (float[N] y) { a = Concat<axis=0>(x)  y = Relu(a) }""",
        "y = Relu(x)",
    ),
    "a slice of everything is dropped": (
        "remove-no-ops",
        """g (float[4] x) => (float[4] y) <int64[1] b = {0}, int64[1] e = {9}>
        { a = Slice(x, b, e)  y = Relu(a) }""",
        "b: int64[1] = [0]\ne: int64[1] = [9]\ny = Relu(x)",
    ),
    "a slice from the end to the beginning stays": (
        "remove-no-ops",
        """g (float[4] x) => (float[4] y)
        <int64[1] b = {3}, int64[1] e = {-9}, int64[1] z = {0}, int64[1] t = {-1}>
        { a = Slice(x, b, e, z, t)  y = Relu(a) }""",
        "b: int64[1] = [3]\ne: int64[1] = [-9]\nz: int64[1] = [0]\nt: int64[1] = [-1]\n"
        "a = Slice(x, b, e, z, t)\ny = Relu(a)",
    ),
    "a transpose that keeps the order is dropped": (
        "remove-no-ops",
        """g (float[A,B] x) => (float[A,B] y) { a = Transpose<perm=[0,1]>(x)  y = Relu(a) }""",
        "y = Relu(x)",
    ),
    "a transpose by default turns the order": (
        "remove-no-ops",
        """g (float[A,B] x) => (float[B,A] y) { a = Transpose(x)  y = Relu(a) }""",
        "a = Transpose(x)\ny = Relu(a)",
    ),
    "a transpose that turns the order of two equal sizes": (
        "remove-no-ops",
        """g (float[A,A] x) => (float[A,A] y) { a = Transpose<perm=[1,0]>(x)  y = Relu(a) }""",
        "a = Transpose<perm=[1, 0]>(x)\ny = Relu(a)",
    ),
    "one divided by x stays": (
        "remove-no-ops",
        """g (float[N] x) => (float[N] y) <float one = {1.0}> { a = Div(one, x)  y = Relu(a) }""",
        "one: float32[] = 1.0\na = Div(one, x)\ny = Relu(a)",
    ),
    "a product with a weight that may be overridden stays": (
        "remove-no-ops",
        """g (float[N] x, float one = {1.0}) => (float[N] y) { a = Mul(x, one)  y = Relu(a) }""",
        "one: float32[] = 1.0\na = Mul(x, one)\ny = Relu(a)",
    ),
    "and with true is dropped, with false it stays": (
        "remove-no-ops",
        """g (bool[N] x) => (bool[N] y) <bool t = {1}, bool f = {0}>
        { a = And(x, t)  b = And(a, f)  y = Not(b) }""",
        "t: bool[] = True\nf: bool[] = False\nb = And(x, f)\ny = Not(b)",
    ),
    "transposes are merged": (
        "merge-layout-chains",
        """g (float[A,B,C] x) => (float[C,A,B] y)
        { a = Transpose<perm=[1,0,2]>(x)  y = Transpose<perm=[2,1,0]>(a) }""",
        "a = Transpose<perm=[1, 0, 2]>(x)\ny = Transpose<perm=[2, 0, 1]>(x)",
    ),
    "reshapes are merged": (
        "merge-layout-chains",
        """g (float[N,12] x) => (float[N,3,4] y) <int64[2] s = {-1, 6}, int64[3] t = {-1, 3, 4}>
        { a = Reshape(x, s)  y = Reshape(a, t) }""",
        "s: int64[2] = [-1, 6]\nt: int64[3] = [-1, 3, 4]\na = Reshape(x, s)\ny = Reshape(x, t)",
    ),
    "a reshape that copies a size stays": (
        "merge-layout-chains",
        """g (float[N,12] x) => (float[M,3,2] y) <int64[2] s = {-1, 6}, int64[3] t = {0, 3, 2}>
        { a = Reshape(x, s)  y = Reshape(a, t) }""",
        "s: int64[2] = [-1, 6]\nt: int64[3] = [0, 3, 2]\na = Reshape(x, s)\ny = Reshape(a, t)",
    ),
    "a reshape of a permutation is not a transpose": (
        "merge-layout-chains",
        """g (float[B,4,4,8] x) => (float[B,4,8,4] y)
        <int64[3] p = {-1, 4, 8}, int64[4] q = {-1, 4, 8, 4}>
        { a = Reshape(x, p)  b = Transpose<perm=[1,0,2]>(a)  y = Reshape(b, q) }""",
        "p: int64[3] = [-1, 4, 8]\nq: int64[4] = [-1, 4, 8, 4]\na = Reshape(x, p)\n"
        "b = Transpose<perm=[1, 0, 2]>(a)\ny = Reshape(b, q)",
    ),
    "a transpose of rows that another reshape cut": (
        "merge-layout-chains",
        """g (float[2,4,8] x) => (float[2,8,4] y)
        <int64[3] p = {2, 8, 4}, int64[3] q = {2, 8, 4}>
        { a = Reshape(x, p)  b = Transpose<perm=[0,2,1]>(a)  y = Reshape(b, q) }""",
        "p: int64[3] = [2, 8, 4]\nq: int64[3] = [2, 8, 4]\na = Reshape(x, p)\n"
        "b = Transpose<perm=[0, 2, 1]>(a)\ny = Reshape(b, q)",
    ),
    "a transpose written through three dimensions": (
        "merge-layout-chains",
        """g (float[B,H,S,8] x) => (float[B,H,8,S] y) <int64[1] m = {-1}, int64[1] d = {8}>
        { s = Shape<start=2, end=3>(x)  l = Shape<end=2>(x)
          p = Concat<axis=0>(m, s, d)  a = Reshape(x, p)  b = Transpose<perm=[0,2,1]>(a)
          q = Concat<axis=0>(l, d, s)  y = Reshape(b, q) }""",
        "m: int64[1] = [-1]\nd: int64[1] = [8]\n"
        "s = Shape<end=3, start=2>(x)\nl = Shape<end=2>(x)\np = Concat<axis=0>(m, s, d)\n"
        "a = Reshape(x, p)\nb = Transpose<perm=[0, 2, 1]>(a)\nq = Concat<axis=0>(l, d, s)\n"
        "y = Transpose<perm=[0, 1, 3, 2]>(x)",
    ),
    "a transpose written through three dimensions, of heads that were one axis with the batch": (
        "merge-layout-chains",
        """g (float[S,B,32] z) => (float[B,4,8,S] y)
        <int64[1] m = {-1}, int64[1] d = {8}, int64[1] h = {4}>
        { s = Shape<end=1>(z)  n = Shape<end=2, start=1>(z)  t = Mul(n, h)
          c = Concat<axis=0>(s, t, d)  e = Reshape(z, c)  x = Transpose<perm=[1,0,2]>(e)
          v = Concat<axis=0>(n, h, s, d)  k = Reshape(x, v)
          p = Concat<axis=0>(m, s, d)  a = Reshape(k, p)  b = Transpose<perm=[0,2,1]>(a)
          q = Concat<axis=0>(n, h, d, s)  y = Reshape(b, q) }""",
        "m: int64[1] = [-1]\nd: int64[1] = [8]\nh: int64[1] = [4]\n"
        "s = Shape<end=1>(z)\nn = Shape<end=2, start=1>(z)\nt = Mul(n, h)\n"
        "c = Concat<axis=0>(s, t, d)\ne = Reshape(z, c)\nx = Transpose<perm=[1, 0, 2]>(e)\n"
        "v = Concat<axis=0>(n, h, s, d)\nk = Reshape(x, v)\np = Concat<axis=0>(m, s, d)\n"
        "a = Reshape(x, p)\nb = Transpose<perm=[0, 2, 1]>(a)\nq = Concat<axis=0>(n, h, d, s)\n"
        "y = Transpose<perm=[0, 1, 3, 2]>(k)",
    ),
    "equal nodes are merged": (
        "eliminate-common-subexpressions",
        """g (float[N] x) => (float[N] y) { a = Exp(x)  b = Exp(x)  y = Add(a, b) }""",
        "a = Exp(x)\ny = Add(a, a)",
    ),
    "random nodes are not equal": (
        "eliminate-common-subexpressions",
        """g (float[N] x) => (float[N] y) { a = Bernoulli(x)  b = Bernoulli(x)  y = Add(a, b) }""",
        "a = Bernoulli(x)\nb = Bernoulli(x)\ny = Add(a, b)",
    ),
    "attributes that differ in the sign of zero": (
        "eliminate-common-subexpressions",
        """g (float[N] x) => (float[N] y)
        { a = Elu<alpha=0.0>(x)  b = Elu<alpha=-0.0>(x)  y = Add(a, b) }""",
        "a = Elu<alpha=0.0>(x)\nb = Elu<alpha=-0.0>(x)\ny = Add(a, b)",
    ),
    "the same operands in another order": (
        "eliminate-common-subexpressions",
        """g (float[N] x, float[N] z) => (float[N] y)
        { a = Sub(x, z)  b = Sub(z, x)  y = Mul(a, b) }""",
        "a = Sub(x, z)\nb = Sub(z, x)\ny = Mul(a, b)",
    ),
    "attributes that differ in number and in text": (
        "eliminate-common-subexpressions",
        """g (float[N,N] x) => (float[N,N] y)
        { a = Softmax<axis=0>(x)  b = Softmax<axis=1>(x)  c = Add(a, b)
          d = Gelu<approximate="none">(x)  e = Gelu<approximate="tanh">(x)  f = Add(d, e)
          g = Transpose<perm=[0,1]>(x)  h = Transpose<perm=[1,0]>(x)  i = Add(g, h)
          j = Add(c, f)  y = Add(i, j) }""",
        "a = Softmax<axis=0>(x)\nb = Softmax<axis=1>(x)\nc = Add(a, b)\n"
        'd = Gelu<approximate="none">(x)\ne = Gelu<approximate="tanh">(x)\nf = Add(d, e)\n'
        "g = Transpose<perm=[0, 1]>(x)\nh = Transpose<perm=[1, 0]>(x)\ni = Add(g, h)\n"
        "j = Add(c, f)\ny = Add(i, j)",
    ),
    "constants of one value in two types": (
        "eliminate-common-subexpressions",
        """g (float[N] x, int32[N] z) => (float[N] y, int32[N] w)
        { a = Constant<value = float {0.0}>()  b = Constant<value = int32 {0}>()
          c = Constant<value = float {0.0}>()
          d = Add(x, a)  y = Add(d, c)  w = Add(z, b) }""",
        "a = Constant<value=float32[] = 0.0>()\nb = Constant<value=int32[] = 0>()\n"
        "d = Add(x, a)\ny = Add(d, a)\nw = Add(z, b)",
    ),
    "two outputs keep a node each": (
        "eliminate-common-subexpressions",
        """g (float[N] x) => (float[N] y, float[N] z) { y = Exp(x)  z = Exp(x) }""",
        "y = Exp(x)\nz = Exp(x)",
    ),
    "nodes and weights that nothing reads": (
        "remove-dead-code",
        """g (float[N] x, float[N] unused) => (float[N] y) <float w = {1.0}>
        { a = Exp(x)  b = Add(a, w)  y = Relu(x) }""",
        "y = Relu(x)",
    ),
    "a node of which one output is read": (
        "remove-dead-code",
        """g (float[4] x) => (float[2] y) { a, b = Split<num_outputs=2>(x)  y = Relu(b) }""",
        "a, b = Split<num_outputs=2>(x)\ny = Relu(b)",
    ),
    "a weight that is an output": (
        "remove-dead-code",
        """g (float[N] x) => (float[N] y, float[1] w) <float[1] w = {1.0}, float[1] v = {2.0}>
        { y = Relu(x) }""",
        "w: float32[1] = [1.0]\ny = Relu(x)",
    ),
    "a weight that is an input is neither a constant nor dead code": (
        "remove-dead-code",
        """g (float[N] x, float w = {1.0}) => (float[N] y) { y = Relu(x) }""",
        "w: float32[] = 1.0\ny = Relu(x)",
    ),
    "constants are folded": (
        "fold-constants",
        """g (float[N] x) => (float[N] y) <float a = {2.0}, float b = {3.0}>
        { c = Mul(a, b)  y = Add(x, c) }""",
        "c: float32[] = 6.0\ny = Add(x, c)",
    ),
    "a weight that may be overridden is not folded": (
        "fold-constants",
        """g (float[N] x, float b = {3.0}) => (float[N] y) <float a = {2.0}>
        { c = Mul(a, b)  y = Add(x, c) }""",
        "b: float32[] = 3.0\na: float32[] = 2.0\nc = Mul(a, b)\ny = Add(x, c)",
    ),
    "random numbers are not folded": (
        "fold-constants",
        """g (float[2] x) => (float[2] y) { c = RandomNormal<shape=[2]>()  y = Add(x, c) }""",
        "c = RandomNormal<shape=[2]>()\ny = Add(x, c)",
    ),
    "a dequantized weight is not folded": (
        "fold-constants",
        """g (float[2] x) => (float[2] y) <int8[2] q = {1, 2}, float s = {0.5}>
        { w = DequantizeLinear(q, s)  y = Add(x, w) }""",
        "q: int8[2] = [1, 2]\ns: float32[] = 0.5\nw = DequantizeLinear(q, s)\ny = Add(x, w)",
    ),
    "a result of 64 MB is not folded": (
        "fold-constants",
        """g (float[N] x) => (float[M] y) <int64[1] n = {16777216}, float one = {1.0}>
        { c = Expand(one, n)  y = Add(x, c) }""",
        "n: int64[1] = [16777216]\none: float32[] = 1.0\nc = Expand(one, n)\ny = Add(x, c)",
    ),
    "a result of 4 TB is not even computed": (
        "fold-constants",
        """g (float[N] x) => (float[M] y) <int64[1] n = {1099511627776}>
        { c = ConstantOfShape(n)  y = Add(x, c) }""",
        "n: int64[1] = [1099511627776]\nc = ConstantOfShape(n)\ny = Add(x, c)",
    ),
    "fixed sizes are folded, also after dynamic ones": (
        "fold-constants",
        """g (float[N,4,8] x) => (int64[2] y)
        { s = Shape(x)  i = Constant<value = int64[2] {2, 1}>()  a = Gather(s, i)  y = Neg(a) }""",
        "a: int64[2] = [8, 4]\ns = Shape(x)\ny = Neg(a)",
    ),
    "exponentials are not folded where every bit must stay": (
        "fold-constants:exact=true",
        """g (float[N] x) => (float[N] y) <float a = {2.0}> { c = Exp(a)  y = Add(x, c) }""",
        "a: float32[] = 2.0\nc = Exp(a)\ny = Add(x, c)",
    ),
    "a number outside the range of an integer stays the runtime's": (
        "fold-constants",
        """g (int64[N] x) => (int64[N] y) <float a = {1e20}, float b = {7.0}>
        { c = Cast<to=7>(a)  d = Cast<to=7>(b)  e = Add(x, c)  y = Add(e, d) }""",
        "a: float32[] = 1e+20\nd: int64[] = 7\nc = Cast<to=7>(a)\ne = Add(x, c)\ny = Add(e, d)",
    ),
    "half precision is moved, not computed": (
        "fold-constants",
        """g (float16[2] x) => (float16[2] y) <float16[2] a = {15360, 16384}, int64[1] s = {2}>
        { b = Reshape(a, s)  c = Add(a, a)  d = Add(x, b)  y = Add(d, c) }""",
        "a: float16[2] = [1.0, 2.0]\nb: float16[2] = [1.0, 2.0]\n"
        "c = Add(a, a)\nd = Add(x, b)\ny = Add(d, c)",
    ),
    "a division by zero among integers stays the runtime's": (
        "fold-constants",
        """g (int64[N] x) => (int64[N] y) <int64 a = {2}, int64 b = {0}>
        { c = Div(a, b)  y = Add(x, c) }""",
        "a: int64[] = 2\nb: int64[] = 0\nc = Div(a, b)\ny = Add(x, c)",
    ),
    "constants become weights": (
        "lift-constants",
        """g (float[N] x) => (float[N] y) { c = Constant<value_float = 2.0>()  y = Add(x, c) }""",
        "c: float32[] = 2.0\ny = Add(x, c)",
    ),
    "a constant output stays a node": (
        "lift-constants",
        """g (float[N] x) => (float[N] y, float c)
        { c = Constant<value_float = 2.0>()  y = Relu(x) }""",
        "c = Constant<value_float=2.0>()\ny = Relu(x)",
    ),
    "equal weights are joined": (
        "deduplicate-initializers",
        """g (float[N] x) => (float[N] y) <float a = {2.0}, float b = {2.0}, float c = {-2.0}>
        { d = Mul(x, a)  e = Mul(d, b)  y = Mul(e, c) }""",
        "a: float32[] = 2.0\nc: float32[] = -2.0\nd = Mul(x, a)\ne = Mul(d, a)\ny = Mul(e, c)",
    ),
    "one pattern of bits in two types and in two shapes": (
        "deduplicate-initializers",
        """g (float[2] x, int32[2] z) => (float[2] y, int32[2] w)
        <float[1] a = {0.0}, int32[1] b = {0}, float[1,1] c = {0.0}>
        { d = Add(x, a)  e = Add(d, c)  y = Squeeze(e)  w = Add(z, b) }""",
        "a: float32[1] = [0.0]\nb: int32[1] = [0]\nc: float32[1, 1] = [0.0]\n"
        "d = Add(x, a)\ne = Add(d, c)\ny = Squeeze(e)\nw = Add(z, b)",
    ),
    "weights of the caller are not joined": (
        "deduplicate-initializers",
        """g (float[N] x, float a = {2.0}) => (float[N] y) <float b = {2.0}>
        { d = Mul(x, a)  y = Mul(d, b) }""",
        "a: float32[] = 2.0\nb: float32[] = 2.0\nd = Mul(x, a)\ny = Mul(d, b)",
    ),
    "zeros of two signs are two weights": (
        "deduplicate-initializers",
        """g (float[N] x) => (float[N] y) <float a = {0.0}, float b = {-0.0}>
        { d = Mul(x, a)  y = Mul(d, b) }""",
        "a: float32[] = 0.0\nb: float32[] = -0.0\nd = Mul(x, a)\ny = Mul(d, b)",
    ),
    "a bias per row is not one per channel": (
        "fuse-conv-bn",
        """g (float[2,2] x) => (float[2,2] y)
        <float[2,2] w = {1.0, 2.0, 3.0, 4.0}, float[2,1] b = {3.0, 4.0}, float[2] o = {1.0, 2.0}>
        { a = Gemm(x, w, b)  y = BatchNormalization(a, o, o, o, o) }""",
        "w: float32[2, 2] = [1.0, 2.0, 3.0, 4.0]\nb: float32[2, 1] = [3.0, 4.0]\n"
        "o: float32[2] = [1.0, 2.0]\na = Gemm(x, w, b)\ny = BatchNormalization(a, o, o, o, o)",
    ),
    "a batch normalization that trains stays": (
        "fuse-conv-bn",
        """g (float[N,1,2,2] x) => (float[N,1,2,2] y) <float[1,1,1,1] w = {2.0}, float[1] o = {1.0}>
        { a = Conv(x, w)  y = BatchNormalization<training_mode=1>(a, o, o, o, o) }""",
        "w: float32[1, 1, 1, 1] = [2.0]\no: float32[1] = [1.0]\na = Conv(x, w)\n"
        "y = BatchNormalization<training_mode=1>(a, o, o, o, o)",
    ),
    "weights of the caller are not folded": (
        "fuse-conv-bn",
        """g (float[N,1,2,2] x, float[1,1,1,1] w) => (float[N,1,2,2] y) <float[1] o = {1.0}>
        { a = Conv(x, w)  y = BatchNormalization(a, o, o, o, o) }""",
        "o: float32[1] = [1.0]\na = Conv(x, w)\ny = BatchNormalization(a, o, o, o, o)",
    ),
    "a convolution that others read stays": (
        "fuse-conv-bn",
        """g (float[N,1,2,2] x) => (float[N,1,2,2] y, float[N,1,2,2] z)
        <float[1,1,1,1] w = {2.0}, float[1] o = {1.0}>
        { a = Conv(x, w)  y = BatchNormalization(a, o, o, o, o)  z = Relu(a) }""",
        "w: float32[1, 1, 1, 1] = [2.0]\no: float32[1] = [1.0]\na = Conv(x, w)\n"
        "y = BatchNormalization(a, o, o, o, o)\nz = Relu(a)",
    ),
    "a negative variance stays the runtime's": (
        "fuse-conv-bn",
        """g (float[N,1,2,2] x) => (float[N,2,2,2] y)
        <float[2,1,1,1] w = {2.0, 3.0}, float[2] o = {1.0, 1.0}, float[2] v = {1.0, -1.0}>
        { a = Conv(x, w)  y = BatchNormalization(a, o, o, o, v) }""",
        "w: float32[2, 1, 1, 1] = [2.0, 3.0]\no: float32[2] = [1.0, 1.0]\n"
        "v: float32[2] = [1.0, -1.0]\na = Conv(x, w)\ny = BatchNormalization(a, o, o, o, v)",
    ),
    "a bias that overflows stays the runtime's": (
        "fuse-conv-bn",
        """g (float[N,1,2,2] x) => (float[N,2,2,2] y)
        <float[2,1,1,1] w = {2.0, 3.0}, float[2] s = {3e38, 1.0}, float[2] m = {-9.0, 0.0},
         float[2] o = {1.0, 1.0}>
        { a = Conv(x, w)  y = BatchNormalization(a, o, o, m, o)
        }""".replace("(a, o,", "(a, s,").replace("{2.0, 3.0}", "{0.1, 3.0}"),
        "w: float32[2, 1, 1, 1] = [0.1, 3.0]\ns: float32[2] = [3e+38, 1.0]\n"
        "m: float32[2] = [-9.0, 0.0]\no: float32[2] = [1.0, 1.0]\na = Conv(x, w)\n"
        "y = BatchNormalization(a, s, o, m, o)",
    ),
    "a weight of which one channel overflows stays the runtime's": (
        "fuse-conv-bn",
        """g (float[N,1,2,2] x) => (float[N,2,2,2] y)
        <float[2,1,1,1] w = {9.0, 3.0}, float[2] s = {3e38, 1.0}, float[2] z = {0.0, 0.0},
         float[2] o = {1.0, 1.0}>
        { a = Conv(x, w)  y = BatchNormalization(a, s, o, z, o) }""",
        "w: float32[2, 1, 1, 1] = [9.0, 3.0]\ns: float32[2] = [3e+38, 1.0]\n"
        "z: float32[2] = [0.0, 0.0]\no: float32[2] = [1.0, 1.0]\na = Conv(x, w)\n"
        "y = BatchNormalization(a, s, o, z, o)",
    ),
    "a batch normalization that stands alone stays": (
        "fuse-conv-bn",
        """g (float[N,2] x) => (float[N,2] y) <float[2] o = {1.0, 2.0}>
        { a = Relu(x)  y = BatchNormalization(a, o, o, o, o) }""",
        "o: float32[2] = [1.0, 2.0]\na = Relu(x)\ny = BatchNormalization(a, o, o, o, o)",
    ),
}


FOREIGN = '<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>'

FOREIGN_CASES = {
    "nodes of a foreign domain are opaque": (
        "eliminate-common-subexpressions",
        """g (float[N] x) => (float[N] y)
        { a = com.microsoft.Gelu(x)  b = com.microsoft.Gelu(x)  y = Add(a, b) }""",
        "a = com.microsoft::Gelu(x)\nb = com.microsoft::Gelu(x)\ny = Add(a, b)",
    ),
    "an identity of a foreign domain is none": (
        "remove-identity",
        """g (float[N] x) => (float[N] y) { a = com.microsoft.Identity(x)  y = Relu(a) }""",
        "a = com.microsoft::Identity(x)\ny = Relu(a)",
    ),
    "a no-op of a foreign domain is none": (
        "remove-no-ops",
        """g (float[N] x) => (float[N] y) { a = com.microsoft.Max(x)  y = Relu(a) }""",
        "a = com.microsoft::Max(x)\ny = Relu(a)",
    ),
    "transposes of a foreign domain are not merged": (
        "merge-layout-chains",
        """g (float[A,B] x) => (float[A,B] y)
        { a = com.microsoft.Transpose<perm=[1,0]>(x)  y = Transpose<perm=[1,0]>(a) }""",
        "a = com.microsoft::Transpose<perm=[1, 0]>(x)\ny = Transpose<perm=[1, 0]>(a)",
    ),
    "a normalization of a foreign domain is none": (
        "fuse-conv-bn",
        """g (float[N,1,2,2] x) => (float[N,1,2,2] y) <float[1,1,1,1] w = {2.0}, float[1] o = {1.0}>
        { a = Conv(x, w)  y = com.microsoft.BatchNormalization(a, o, o, o, o) }""",
        "w: float32[1, 1, 1, 1] = [2.0]\no: float32[1] = [1.0]\na = Conv(x, w)\n"
        "y = com.microsoft::BatchNormalization(a, o, o, o, o)",
    ),
}


@pytest.mark.parametrize("case", FOREIGN_CASES)
def test_step_over_foreign_operators(case: str, run: Run) -> None:
    text, source, expected = FOREIGN_CASES[case]
    found, _ = run(text, f"{FOREIGN} {source}")
    assert found == expected


@pytest.mark.parametrize("case", CASES)
def test_step(case: str, run: Run) -> None:
    text, source, expected = CASES[case]
    found, _ = run(text, f"{HEAD} {source}")
    assert found == expected

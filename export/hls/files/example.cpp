// A layer's dot product with @NAME@, as hls4ml's layers compute it, and all its products.
// g++ -std=c++11 -I rtl/hls rtl/hls/example.cpp && ./a.out
#include "cosearch_product.h"

#include <cstdio>

// What hls4ml writes into a layer's configuration, with the product of our header.
struct config1 {
    template <class x_T, class w_T> using product = nnet::product::@NAME@<x_T, w_T>;
};

template <class x_T, class w_T, class CONFIG_T> int dot(const x_T *x, const w_T *w, int length) {
    int sum = 0;
    for (int i = 0; i < length; i++)
        sum += CONFIG_T::template product<x_T, w_T>::product(x[i], w[i]);
    return sum;
}

int main() {
    const @A_TYPE@ x[3] = {3, 5, 7};
    const @B_TYPE@ w[3] = {2, 4, 6};
    std::printf("sum of three products: %d\n", dot<@A_TYPE@, @B_TYPE@, config1>(x, w, 3));

    unsigned checksum = 0;
    for (unsigned a = 0; a < @A_SIZE@; a++)
        for (unsigned b = 0; b < @B_SIZE@; b++)
            checksum = 31u * checksum + static_cast<unsigned>(cosearch::@NAME@(a, b));
    std::printf("%s\n", checksum == @CHECKSUM@ ? "PASS all products" : "FAIL");
    return checksum == @CHECKSUM@ ? 0 : 1;
}

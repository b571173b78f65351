// For `make formal`: p of the pipelined form is the product of the operands STAGES clocks before.
// CORE, PIPELINED: the two modules; A_WIDTH, B_WIDTH, P_WIDTH: their ports.
module delayed(clk, a, b, different);
  input clk;
  input [`A_WIDTH-1:0] a;
  input [`B_WIDTH-1:0] b;
  output different;

  wire [`P_WIDTH-1:0] found;
  wire [`P_WIDTH-1:0] expected;
  reg [`STAGES*(`A_WIDTH+`B_WIDTH)-1:0] history;
  wire [(`STAGES+1)*(`A_WIDTH+`B_WIDTH)-1:0] shifted = {history, a, b};

  always @(posedge clk) history <= shifted[`STAGES*(`A_WIDTH+`B_WIDTH)-1:0];

  `CORE core (
    .a(history[`STAGES*(`A_WIDTH+`B_WIDTH)-1 -: `A_WIDTH]),
    .b(history[`STAGES*(`A_WIDTH+`B_WIDTH)-`A_WIDTH-1 -: `B_WIDTH]),
    .p(expected)
  );
  `PIPELINED #(.STAGES(`STAGES)) pipelined (.clk(clk), .a(a), .b(b), .p(found));

  assign different = found != expected;
endmodule

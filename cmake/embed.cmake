# gptq_embed(FILE SOURCE HEADER FUNCTION): writes SOURCE, which defines std::string_view gptq::FUNCTION(), the bytes of
# FILE, as HEADER declares it. It is written again where FILE changes.
function(gptq_embed file source header function)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  file(READ ${file} hex HEX)
  string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  file(CONFIGURE OUTPUT ${source} @ONLY CONTENT [[
#include "@header@"

namespace gptq {
namespace {

const unsigned char kBytes[] = {
@bytes@
};

}  // namespace

std::string_view @function@() { return {reinterpret_cast<const char*>(kBytes), sizeof kBytes}; }

}  // namespace gptq
]])
endfunction()

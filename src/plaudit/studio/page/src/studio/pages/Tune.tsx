import { Heading } from "../../ui/parts";

export function Tune() {
  return <Heading title="Tune" />;
}
